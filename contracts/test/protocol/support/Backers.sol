// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Backer, CampaignTerms, ICampaign, Stage} from "../../../interfaces/ICampaign.sol";
import {GroupProof, SegmentState} from "../../../interfaces/IMarket.sol";
import {CampaignFixture} from "./CampaignFixture.sol";

/// Six accounts that do with some campaigns and their jobs anything the rules allow, in any order. What a campaign does
/// not allow now is passed over, and a call that it allows and that reverts fails the test; what the Market refuses is
/// the Market's affair.
contract Backers is CampaignFixture {
    uint256 private constant COUNT = 6;
    uint256 private constant MAX_CAMPAIGNS = 3;
    /// Parts of a unit in which the reference below counts.
    uint256 private constant FINE = 1e18;

    /// What happened to one campaign. Of each kind of money, what came in, and what went to whom.
    struct Book {
        uint256 donated;
        uint256 donatedRewards;
        uint256 refunded;
        uint256 income;
        uint256 rewards;
        mapping(address account => uint256) refundedTo;
        mapping(address account => uint256) returnedTo;
        mapping(address account => uint256) incomeOf; // FINE parts, reckoned by a loop over all holders
        mapping(address account => uint256) incomeTo;
        mapping(address account => uint256) rewardsOf;
        mapping(address account => uint256) rewardsTo;
    }

    address[COUNT] public accounts;
    mapping(ICampaign campaign => Book) private books;
    /// How often each action was more than passed over.
    mapping(string action => uint256) public done;

    function setUp() public override {
        super.setUp();
        accounts = [ada, ben, cleo, solver, other, stranger];
    }

    // ---------------------------------------------------------------- pledges

    function wait(uint256 time) external {
        pass(time % 32 == 0 ? GRACE : time % 64 == 1 ? EPOCH : time % 1000);
    }

    function createAnother() external {
        if (crowdfund.count() >= MAX_CAMPAIGNS) return;
        CampaignTerms memory t = campaignTerms();
        t.pledgeDeadline = uint64(vm.getBlockTimestamp() + 20_000 + crowdfund.count());
        t.job.deadline = 3 * EPOCH;
        if (newCampaign(t).stage() == Stage.Pledging) ++done["create"];
    }

    function pledge(uint256 which, uint256 account, uint256 amount) external {
        choose(which);
        if (campaign.stage() != Stage.Pledging) return;
        amount = amount % 8 == 0 ? GOAL : bound(amount, 1, GOAL / 4);
        pledge(pick(account), uint128(amount));
        ++done["pledge"];
    }

    function refund(uint256 which, uint256 account) external {
        choose(which);
        for (uint256 i = 0; i < COUNT && !tryRefund(pick(account % COUNT + i)); ++i) {}
    }

    function launchOne(uint256 which) external {
        choose(which);
        if (campaign.stage() != Stage.Funded) return;
        campaign.launch();
        ++done["launch"];
    }

    // ---------------------------------------------------------------- the job

    function claim(uint256 which, uint256 account, uint256 segment) external {
        choose(which);
        for (uint32 k = 0; k < SEGMENTS; ++k) {
            uint32 i = uint32((segment % SEGMENTS + k) % SEGMENTS);
            if (at(i).state != SegmentState.Open) continue;
            bytes32[] memory proof = planProof(i);
            GroupProof[] memory inputs = inputProofs(i);
            vm.prank(account % 2 == 0 ? solver : other);
            try market.claim(job, i, spec(i), proof, inputs) {
                ++done["claim"];
                if (account % 4 < 3) commit(account % 2 == 0 ? solver : other, i);
                return;
            } catch {}
        }
    }

    function commit(uint256 which, uint256 segment) external {
        choose(which);
        for (uint32 k = 0; k < SEGMENTS; ++k) {
            uint32 i = uint32((segment % SEGMENTS + k) % SEGMENTS);
            if (at(i).state != SegmentState.Claimed || vm.getBlockTimestamp() > at(i).until) continue;
            return commit(at(i).solver, i);
        }
    }

    function endAll(uint256 which) public {
        choose(which);
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            if (at(i).state == SegmentState.Open || at(i).state == SegmentState.Settled) continue;
            try market.settle(job, i, spec(i), traceRoot(i)) {
                ++done["settle"];
            } catch {}
            try market.expire(job, i) {} catch {}
            try market.void(job, i, spec(i)) {} catch {}
        }
    }

    /// The solver has not shown its trace in time.
    function forfeit(uint256 which, uint256 segment) external {
        choose(which);
        uint32 i = uint32(segment % SEGMENTS);
        if (segment % 4 == 0) pass(WINDOW + CLOCK + 1);
        try market.forfeit(job, i, spec(i)) {
            ++done["forfeit"];
        } catch {}
    }

    function askForRefund(uint256 which) external {
        choose(which);
        try market.refund(job) {} catch {}
    }

    // ---------------------------------------------------------------- shares and money

    function claimShares(uint256 which, uint256 account) external {
        choose(which);
        for (uint256 i = 0; i < COUNT && !tryClaimShares(pick(account % COUNT + i)); ++i) {}
    }

    function credit(uint256 which, uint256 segment) external {
        choose(which);
        for (uint32 i = 0; i < SEGMENTS && !tryCredit(uint32(segment % SEGMENTS + i) % SEGMENTS); ++i) {}
    }

    function transferShares(uint256 which, uint256 from, uint256 to, uint256 amount) external {
        choose(which);
        for (uint256 i = 0; i < COUNT; ++i) {
            address sender = pick(from % COUNT + i);
            uint256 balance = shares.balanceOf(sender);
            if (balance == 0) continue;
            transfer(sender, pick(to), amount % 4 == 0 ? balance : amount % (balance + 1));
            ++done["transfer"];
            return;
        }
    }

    function pay(uint256 which, uint256 account, uint256 amount) external {
        choose(which);
        if (shares.totalSupply() == 0) return;
        amount = bound(amount, 0, amount % 2 == 0 ? 10 : 1e24);
        payIncome(pick(account), uint128(amount));
        Book storage book = books[campaign];
        book.income += amount;
        for (uint256 i = 0; i < COUNT; ++i) {
            book.incomeOf[accounts[i]] += partOf(amount, accounts[i]);
        }
        ++done["pay income"];
    }

    function claimIncome(uint256 which, uint256 account) external {
        choose(which);
        for (uint256 i = 0; i < COUNT && !tryClaimIncome(pick(account % COUNT + i)); ++i) {}
    }

    function finishOne(uint256 which) external {
        choose(which);
        tryFinish();
    }

    function claimReturn(uint256 which, uint256 account) external {
        choose(which);
        for (uint256 i = 0; i < COUNT && !tryClaimReturn(pick(account % COUNT + i)); ++i) {}
    }

    function collect(uint256 which, uint256 patience) external {
        choose(which);
        if (patience % 2 == 0 && emission.points(now_(), address(campaign)) > 0) pass(EPOCH);
        for (uint64 epoch = 0; epoch < now_() + 1; ++epoch) {
            tryCollect(epoch);
        }
    }

    function claimRewards(uint256 which, uint256 account) external {
        choose(which);
        for (uint256 i = 0; i < COUNT && !tryClaimRewards(pick(account % COUNT + i)); ++i) {}
    }

    /// Anybody may claim for the campaign, to their own advantage or not.
    function claimForTheCampaign(uint256 which, uint256 epoch) external {
        choose(which);
        uint64 e = uint64(epoch % 3);
        if (e >= now_() || emission.claimable(e, address(campaign)) == 0) return;
        emission.claim(e, address(campaign));
    }

    function donate(uint256 which, uint256 amount) external {
        choose(which);
        amount = bound(amount, 1, 1e24);
        money.mint(address(campaign), amount);
        books[campaign].donated += amount;
    }

    // ---------------------------------------------------------------- exits

    /// Everybody leaves, from every campaign.
    function exitAll() external {
        pass(DURATION + 20_000);
        for (uint256 c = 0; c < crowdfund.count(); ++c) {
            for (uint256 round = 0; round < 2; ++round) {
                endAll(c);
                pass(WINDOW + 1);
            }
            pass(CLOCK + GRACE);
            for (uint32 i = 0; i < SEGMENTS; ++i) {
                tryCredit(i);
            }
            pass(EPOCH);
            tryFinish();
            for (uint64 epoch = 0; epoch < now_(); ++epoch) {
                tryCollect(epoch);
            }
            for (uint256 i = 0; i < COUNT; ++i) {
                tryRefund(accounts[i]);
                tryClaimShares(accounts[i]);
                tryClaimReturn(accounts[i]);
                tryClaimIncome(accounts[i]);
                tryClaimRewards(accounts[i]);
            }
        }
    }

    function tryRefund(address account) private returns (bool) {
        if (campaign.stage() != Stage.Failed || campaign.backers(account).pledged == 0) return false;
        uint256 amount = campaign.refund(account);
        books[campaign].refunded += amount;
        books[campaign].refundedTo[account] += amount;
        ++done["refund"];
        return true;
    }

    function tryClaimShares(address account) private returns (bool) {
        Backer memory b = campaign.backers(account);
        if (campaign.stage() != Stage.Launched || b.pledged == 0 || b.sharesClaimed) return false;
        campaign.claimShares(account);
        ++done["claim shares"];
        return true;
    }

    function tryCredit(uint32 i) private returns (bool) {
        if (at(i).state != SegmentState.Settled || campaign.credited(i)) return false;
        campaign.credit(i, spec(i));
        ++done["credit"];
        return true;
    }

    function tryClaimIncome(address account) private returns (bool) {
        if (campaign.incomeOf(account) == 0) return false;
        vm.prank(account);
        books[campaign].incomeTo[account] += campaign.claimIncome();
        ++done["claim income"];
        return true;
    }

    function tryFinish() private {
        if (campaign.stage() != Stage.Launched) return;
        try campaign.finish() {
            ++done["finish"];
        } catch {
            // exactly when there is nothing
            assertEq(market.owed(address(campaign)) + free(address(campaign)), 0, "nothing to return");
        }
    }

    function tryClaimReturn(address account) private returns (bool) {
        if (campaign.returnOf(account) == 0) return false;
        books[campaign].returnedTo[account] += campaign.claimReturn(account);
        ++done["claim what came back"];
        return true;
    }

    function tryCollect(uint64 epoch) private {
        Book storage book = books[campaign];
        uint256 waiting = rewards.balanceOf(address(campaign)) + paidRewards() - book.rewards;
        if (epoch < now_()) waiting += emission.claimable(epoch, address(campaign));
        else if (emission.claimable(epoch, address(campaign)) > 0) return;
        if (waiting == 0 || shares.totalSupply() == 0) return;
        uint256 amount = campaign.collectRewards(epoch);
        assertEq(amount, waiting, "collected");
        book.rewards += amount;
        for (uint256 i = 0; i < COUNT; ++i) {
            book.rewardsOf[accounts[i]] += partOf(amount, accounts[i]);
        }
        ++done["collect rewards"];
    }

    function tryClaimRewards(address account) private returns (bool) {
        if (campaign.rewardsOf(account) == 0) return false;
        vm.prank(account);
        books[campaign].rewardsTo[account] += campaign.claimRewards();
        ++done["claim rewards"];
        return true;
    }

    // ---------------------------------------------------------------- helpers

    function choose(uint256 which) private {
        use(crowdfund.campaigns(which % crowdfund.count()));
        job = campaign.job();
    }

    function pick(uint256 account) private view returns (address) {
        return accounts[account % COUNT];
    }

    function now_() private view returns (uint64) {
        return emission.epochAt(uint64(vm.getBlockTimestamp()));
    }

    /// What an account's shares, claimed or not, are due of `amount`, in FINE parts.
    function partOf(uint256 amount, address account) private view returns (uint256) {
        return amount * FINE * (shares.balanceOf(account) + unclaimed(account)) / shares.totalSupply();
    }

    function unclaimed(address account) private view returns (uint256) {
        Backer memory b = campaign.backers(account);
        if (campaign.stage() != Stage.Launched || b.sharesClaimed) return 0;
        return SHARES / 2 * b.pledged / GOAL;
    }

    function paidRewards() private view returns (uint256 sum) {
        for (uint256 i = 0; i < COUNT; ++i) {
            sum += books[campaign].rewardsTo[accounts[i]];
        }
    }

    // ---------------------------------------------------------------- what must hold

    function checkAll() external {
        for (uint256 c = 0; c < crowdfund.count(); ++c) {
            choose(c);
            checkHeld();
            checkShares();
            checkIncome();
        }
    }

    /// Held is what was pledged and neither refunded nor spent on the job, what came back, and income; to the wei.
    function checkHeld() private view {
        Book storage book = books[campaign];
        bool launched = campaign.stage() == Stage.Launched;
        uint256 expected = book.donated + book.income;
        if (launched) expected += campaign.returned();
        else expected += campaign.raised() - book.refunded;
        uint256 pledged = 0;
        for (uint256 i = 0; i < COUNT; ++i) {
            address a = accounts[i];
            expected -= book.incomeTo[a] + book.returnedTo[a];
            pledged += campaign.backers(a).pledged;
            // INVARIANT: a pledge is refunded or bought a part, never both.
            bool refunded = book.refundedTo[a] > 0;
            assertFalse(refunded && (campaign.backers(a).pledged > 0 || launched), "refunded or owner");
            assertLe(campaign.returnOf(a), campaign.returned(), "returned");
        }
        assertEq(pledged, campaign.raised() - book.refunded, "pledges");
        assertEq(money.balanceOf(address(campaign)), expected, "held");
    }

    function checkShares() private view {
        uint256 sum = shares.balanceOf(address(campaign));
        uint256 kept = 0;
        for (uint256 i = 0; i < COUNT; ++i) {
            sum += shares.balanceOf(accounts[i]);
            kept += unclaimed(accounts[i]);
        }
        assertEq(sum, shares.totalSupply(), "shares");
        assertLe(sum, SHARES, "all shares");
        assertLe(kept, shares.balanceOf(address(campaign)), "kept for backers");
        bool launched = campaign.stage() == Stage.Launched;
        uint256 solvers = launched ? sum - SHARES / 2 : 0;
        assertEq(solvers, SHARES * 4 / 10 * campaign.creditedSteps() / STEPS, "the solvers' shares");
    }

    /// Whatever was transferred when: everybody gets what a loop over all holders at each payment would have given,
    /// less than a unit apart, and never more.
    function checkIncome() private view {
        Book storage book = books[campaign];
        (uint256 due, uint256 dueRewards) = (0, 0);
        for (uint256 i = 0; i < COUNT; ++i) {
            address a = accounts[i];
            due += campaign.incomeOf(a) + book.incomeTo[a];
            dueRewards += campaign.rewardsOf(a) + book.rewardsTo[a];
            if (unclaimed(a) > 0) continue;
            compare(campaign.incomeOf(a) + book.incomeTo[a], book.incomeOf[a]);
            compare(campaign.rewardsOf(a) + book.rewardsTo[a], book.rewardsOf[a]);
        }
        assertLe(due, book.income, "income");
        assertLe(dueRewards, book.rewards, "rewards");
    }

    function compare(uint256 actual, uint256 fine) private pure {
        // The reference rounds each payment down; both know it to within a unit.
        assertLe(actual, fine / FINE + 1, "not more than due");
        assertLe(fine / FINE, actual + 1, "not less than due");
    }

    function checkEmission() external view {
        uint256 most = 0;
        for (uint64 epoch = 0; epoch < now_() && epoch < 64; ++epoch) {
            uint256 byFees = emission.fees(epoch) * RATIO / 1e18;
            most += byFees < emission.budget(epoch) ? byFees : emission.budget(epoch);
        }
        assertLe(rewards.totalSupply(), most, "minted");
    }

    /// After exitAll: of each kind of money less than a unit for each account is left, and what was donated.
    function checkOnlyDustIsLeft() external {
        for (uint256 c = 0; c < crowdfund.count(); ++c) {
            choose(c);
            Book storage book = books[campaign];
            assertTrue(campaign.stage() == Stage.Launched || campaign.stage() == Stage.Failed, "over");
            uint256 left = money.balanceOf(address(campaign)) - book.donated;
            assertLe(left, 2 * COUNT, "dust");
            assertLe(rewards.balanceOf(address(campaign)), COUNT, "dust of rewards");
            assertEq(market.owed(address(campaign)) + free(address(campaign)), 0, "elsewhere");
        }
    }
}
