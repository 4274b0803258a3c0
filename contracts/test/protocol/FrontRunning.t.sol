// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit, Opening, Outcome} from "../../interfaces/IAudit.sol";
import {IBurner} from "../../interfaces/IBurner.sol";
import {CampaignTerms, ICampaign, Stage} from "../../interfaces/ICampaign.sol";
import {ICrowdfund} from "../../interfaces/ICrowdfund.sol";
import {IDispute, Phase, ProgramLeaf, ValueProof} from "../../interfaces/IDispute.sol";
import {IEmission} from "../../interfaces/IEmission.sol";
import {IMarket, JobTerms, SegmentState} from "../../interfaces/IMarket.sol";
import {Page} from "../../interfaces/IReferee.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {IToken} from "../../interfaces/IToken.sol";
import {GameId, Seal, StateRoot} from "../../types/Ids.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";
import {GameFixture, Players} from "./support/GameFixture.sol";
import {Fault} from "./support/Toy.sol";
import {Trees} from "./support/Trees.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// In every state that a job and a campaign pass through, a thief who sees somebody's call copies it, or makes any other
/// call, first. Every entry point is in the table of `calls`, but for the moves of a game, which are in MovesTest below;
/// tests/contracts/test_entry_points.py holds both against the ABIs.
contract FrontRunningTest is CampaignFixture {
    /// Whose call it is: for oneself, for whomever it concerns, or for another contract only.
    enum For {
        Caller,
        Anybody,
        Protocol
    }

    struct Call {
        string name;
        For kind;
        address target;
        address caller;
        bytes data;
    }

    /// What an account has of each kind, wherever it is.
    struct Wealth {
        uint256 money;
        uint256 rewards;
        uint256 shares;
    }

    uint256 private constant ACCOUNTS = 8;
    uint256 private constant SIZE = 64;

    address private mallory = makeAddr("mallory");
    bytes32[] private trace;

    // ---------------------------------------------------------------- the table

    function calls() private view returns (Call[] memory list) {
        list = new Call[](SIZE);
        uint256 n = _ofMarket(list, 0);
        n = _ofStakeAndDispute(list, n);
        n = _ofAudit(list, n);
        n = _ofTokens(list, n);
        n = _ofCampaign(list, n);
        assembly ("memory-safe") {
            mstore(list, n)
        }
    }

    function _ofMarket(Call[] memory list, uint256 n) private view returns (uint256) {
        (address to, bytes32 root, uint32 attempt) = (address(market), Trees.root(trace), at(0).attempt);
        bytes memory data = abi.encodeCall(IMarket.post, (terms(), CID));
        list[n++] = Call("post", For.Caller, to, buyer, data);
        data = abi.encodeCall(IMarket.claim, (job, 0, spec(0), planProof(0), inputProofs(0)));
        list[n++] = Call("claim", For.Caller, to, solver, data);
        Seal seal = Seal.wrap(sha256(abi.encodePacked(root, solver)));
        data = abi.encodeCall(IMarket.commit, (job, 0, StateRoot.wrap(inputRoot(0)), outputs[0], seal, CID));
        list[n++] = Call("commit", For.Caller, to, solver, data);
        list[n++] = Call("settle", For.Anybody, to, solver, abi.encodeCall(IMarket.settle, (job, 0, spec(0), root)));
        list[n++] = Call("forfeit", For.Anybody, to, buyer, abi.encodeCall(IMarket.forfeit, (job, 0, spec(0))));
        list[n++] = Call("expire", For.Anybody, to, buyer, abi.encodeCall(IMarket.expire, (job, 0)));
        list[n++] = Call("void", For.Anybody, to, other, abi.encodeCall(IMarket.void, (job, 1, spec(1))));
        list[n++] = Call("refund", For.Anybody, to, buyer, abi.encodeCall(IMarket.refund, (job)));
        list[n++] = Call("take what is owed", For.Caller, to, solver, abi.encodeCall(IMarket.withdraw, ()));
        list[n++] = Call("sweep", For.Anybody, to, buyer, abi.encodeCall(IBurner.sweep, ()));
        list[n++] = Call("disputed", For.Protocol, to, address(dispute), abi.encodeCall(IMarket.disputed, (job, 0)));
        data = abi.encodeCall(IMarket.upheld, (job, 0, attempt));
        list[n++] = Call("upheld", For.Protocol, to, address(dispute), data);
        data = abi.encodeCall(IMarket.overturn, (job, 0, attempt, mallory));
        list[n++] = Call("overturn", For.Protocol, to, address(dispute), data);
        return n;
    }

    function _ofStakeAndDispute(Call[] memory list, uint256 n) private view returns (uint256) {
        address to = address(stake);
        list[n++] = Call("deposit", For.Caller, to, solver, abi.encodeCall(IStake.deposit, (STAKE)));
        list[n++] = Call("withdraw stake", For.Caller, to, solver, abi.encodeCall(IStake.withdraw, (STAKE)));
        list[n++] = Call("sweep stake", For.Anybody, to, buyer, abi.encodeCall(IBurner.sweep, ()));
        list[n++] = Call("lock", For.Protocol, to, address(audit), abi.encodeCall(IStake.lock, (solver, 1)));
        list[n++] = Call("unlock", For.Protocol, to, address(audit), abi.encodeCall(IStake.unlock, (ada, 1)));
        bytes memory data = abi.encodeCall(IStake.slash, (ada, 1, mallory));
        list[n++] = Call("slash", For.Protocol, to, address(audit), data);
        to = address(dispute);
        data = abi.encodeCall(IDispute.challenge, (job, 0, spec(0), at(0).seal));
        list[n++] = Call("challenge", For.Caller, to, challenger, data);
        list[n++] = Call("timeout", For.Anybody, to, challenger, abi.encodeCall(IDispute.timeout, (GameId.wrap(1))));
        list[n++] = Call("close", For.Anybody, to, challenger, abi.encodeCall(IDispute.close, (GameId.wrap(1))));
        return n;
    }

    function _ofAudit(Call[] memory list, uint256 n) private view returns (uint256) {
        (address to, uint32 attempt, bytes32 root) = (address(audit), at(0).attempt, Trees.root(trace));
        list[n++] = Call("enroll", For.Caller, to, solver, abi.encodeCall(IAudit.enroll, (STAKE)));
        list[n++] = Call("leave", For.Caller, to, ben, abi.encodeCall(IAudit.leave, (WEIGHT)));
        list[n++] = Call("finish leaving", For.Anybody, to, cleo, abi.encodeCall(IAudit.finishLeaving, (cleo)));
        list[n++] = Call("draw", For.Anybody, to, ada, abi.encodeCall(IAudit.draw, (job, 0, attempt)));
        Seal right = Seal.wrap(sha256(abi.encodePacked(root, ada)));
        bytes memory data = abi.encodeCall(IAudit.attest, (job, 0, attempt, at(0).seal, right));
        list[n++] = Call("attest", For.Caller, to, ada, data);
        data = abi.encodeCall(IAudit.reveal, (job, 0, attempt, root));
        list[n++] = Call("reveal", For.Anybody, to, solver, data);
        data = abi.encodeCall(IAudit.punish, (job, 0, attempt, ben));
        list[n++] = Call("punish", For.Anybody, to, challenger, data);
        Opening memory opening;
        data = abi.encodeCall(IAudit.open, (job, 3, 0, opening));
        list[n++] = Call("open", For.Protocol, to, address(market), data);
        data = abi.encodeCall(IAudit.settle, (job, 0, attempt, root, PRICE));
        list[n++] = Call("settle the audit", For.Protocol, to, address(market), data);
        data = abi.encodeCall(IAudit.drop, (job, 0, attempt, Outcome.Voided));
        list[n++] = Call("drop", For.Protocol, to, address(market), data);
        list[n++] = Call("expired", For.Protocol, to, address(market), abi.encodeCall(IAudit.expired, (solver)));
        return n;
    }

    function _ofTokens(Call[] memory list, uint256 n) private view returns (uint256) {
        address to = address(emission);
        list[n++] = Call("claim rewards", For.Anybody, to, solver, abi.encodeCall(IEmission.claim, (0, solver)));
        bytes memory data = abi.encodeCall(IEmission.accrue, (1, mallory, mallory, new address[](0)));
        list[n++] = Call("accrue", For.Protocol, to, address(market), data);
        to = address(rewards);
        list[n++] = Call("mint", For.Protocol, to, address(emission), abi.encodeCall(IToken.mint, (mallory, 1)));
        list[n++] = Call("send rewards", For.Caller, to, solver, abi.encodeCall(IERC20.transfer, (other, 1)));
        return n;
    }

    function _ofCampaign(Call[] memory list, uint256 n) private view returns (uint256) {
        address to = address(campaign);
        bytes memory data = abi.encodeCall(ICrowdfund.create, (campaignTerms(), CID));
        list[n++] = Call("create", For.Caller, address(crowdfund), other, data);
        list[n++] = Call("pledge", For.Caller, to, ben, abi.encodeCall(ICampaign.pledge, (30_000)));
        list[n++] = Call("refund a pledge", For.Anybody, to, ada, abi.encodeCall(ICampaign.refund, (ada)));
        list[n++] = Call("launch", For.Anybody, to, ada, abi.encodeCall(ICampaign.launch, ()));
        list[n++] = Call("claim shares", For.Anybody, to, ada, abi.encodeCall(ICampaign.claimShares, (ada)));
        list[n++] = Call("credit", For.Anybody, to, solver, abi.encodeCall(ICampaign.credit, (0, spec(0))));
        list[n++] = Call("finish", For.Anybody, to, ada, abi.encodeCall(ICampaign.finish, ()));
        list[n++] = Call("claim a return", For.Anybody, to, ada, abi.encodeCall(ICampaign.claimReturn, (ada)));
        list[n++] = Call("pay income", For.Caller, to, other, abi.encodeCall(ICampaign.payIncome, (9000)));
        list[n++] = Call("claim income", For.Caller, to, ben, abi.encodeCall(ICampaign.claimIncome, ()));
        list[n++] = Call("collect rewards", For.Anybody, to, ben, abi.encodeCall(ICampaign.collectRewards, (0)));
        list[n++] = Call("claim their rewards", For.Caller, to, ben, abi.encodeCall(ICampaign.claimRewards, ()));
        list[n++] = Call("send shares", For.Caller, to, ben, abi.encodeCall(IERC20.transfer, (other, 1)));
        list[n++] = Call("allow", For.Caller, to, ben, abi.encodeCall(IERC20.approve, (challenger, 1)));
        data = abi.encodeCall(IERC20.transferFrom, (ben, other, 1));
        list[n++] = Call("take what is allowed", For.Caller, to, other, data);
        return n;
    }

    // ---------------------------------------------------------------- the states

    uint256 private constant WEIGHT = 30_000;
    uint256 private constant STATES = 16;

    function setUp() public override {
        super.setUp();
        vm.roll(1000);
        address[5] memory equipped = [ada, ben, cleo, mallory, other];
        for (uint256 i = 0; i < equipped.length; ++i) {
            fund(equipped[i], PURSE);
            deposit(equipped[i], PURSE / 2);
        }
        address[3] memory auditors = [ada, ben, cleo];
        for (uint256 i = 0; i < auditors.length; ++i) {
            vm.prank(auditors[i]);
            audit.enroll(WEIGHT);
        }
        vm.roll(1002);
        CampaignTerms memory t = campaignTerms();
        t.job.auditRate = 40_000;
        use(newCampaign(t));
        for (uint256 i = 0; i < equipped.length; ++i) {
            approve(equipped[i], address(campaign));
        }
        vm.prank(ben);
        shares.approve(other, 1);
        JobTerms memory terms_ = terms();
        terms_.auditRate = 40_000;
        job = post(terms_);
        for (uint256 i = 0; i < 5; ++i) {
            trace.push(keccak256(abi.encode("checkpoint", i)));
        }
        trace[0] = bytes32(inputRoot(0));
        trace[4] = Trees.root(outputs[0]);
    }

    /// Brings about the state of this number. States with a campaign's own job have it as `job`.
    function reach(uint256 state) private {
        if (state == 0) return; // a job is posted, nothing pledged
        if (state == 15) return pass(DEADLINE); // the deadline is over
        if (state >= 8) return _reachOfCampaign(state);
        claim(solver, 0);
        if (state == 1) return;
        if (state == 2) return pass(LEASE + 1);
        act(solver, "commit");
        if (state == 7) claim(other, 1); // on what is going to fall
        vm.roll(vm.getBlockNumber() + 2);
        if (state == 3) return;
        act(ada, "attest");
        if (state == 4) return pass(WINDOW / 2 + 1); // the trace root may be shown
        if (state == 5) {
            pass(WINDOW + CLOCK + 1); // settle or forfeit: whichever comes first
            return;
        }
        act(challenger, "challenge");
        act(other, "challenge");
        pass(WINDOW / 2 + CLOCK + 2);
        if (state == 6) return; // the clock has run out
        dispute.timeout(GameId.wrap(2)); // the other game is moot, and what was built on it void
    }

    function _reachOfCampaign(uint256 state) private {
        vm.prank(ada);
        campaign.pledge(70_000);
        if (state == 8) return;
        if (state == 9) return pass(PLEDGE_DEADLINE);
        vm.prank(ben);
        campaign.pledge(30_000);
        if (state == 10) return;
        launch();
        if (state == 11) return;
        claim(solver, 0);
        act(solver, "commit");
        vm.roll(vm.getBlockNumber() + 2);
        act(ada, "draw");
        pass(WINDOW + 1);
        act(solver, "settle");
        campaign.claimShares(ben);
        vm.prank(other);
        campaign.payIncome(10_000);
        if (state == 12) return;
        vm.prank(cleo);
        audit.leave(WEIGHT / 2);
        pass(DURATION + EPOCH + UNBONDING);
        if (state == 13) return;
        campaign.collectRewards(0);
        campaign.finish();
        emission.claim(0, solver);
    }

    /// Makes a call of the table.
    function act(address account, string memory name) private {
        Call[] memory list = calls();
        for (uint256 i = 0; i < list.length; ++i) {
            if (!same(list[i].name, name)) continue;
            assertTrue(send(account, list[i]), name);
            return;
        }
        assertTrue(false, name);
    }

    function send(address account, Call memory c) private returns (bool ok) {
        vm.prank(account);
        (ok,) = c.target.call(c.data);
    }

    // ---------------------------------------------------------------- what must hold

    function wealth() private view returns (Wealth[] memory list) {
        address[ACCOUNTS] memory all = [buyer, solver, other, challenger, ada, ben, cleo, mallory];
        list = new Wealth[](ACCOUNTS);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            list[i] = wealthOf(all[i]);
        }
    }

    function wealthOf(address a) private view returns (Wealth memory w) {
        uint256 pledged = campaign.backers(a).pledged;
        bool launched = campaign.stage() == Stage.Launched;
        w.money = money.balanceOf(a) + free(a) + locked(a) + market.owed(a);
        w.money += campaign.returnOf(a) + campaign.incomeOf(a) + (launched ? 0 : pledged);
        w.rewards = rewards.balanceOf(a) + emission.claimable(0, a) + campaign.rewardsOf(a);
        w.shares = shares.balanceOf(a);
        if (launched && !campaign.backers(a).sharesClaimed) w.shares += SHARES / 2 * pledged / GOAL;
    }

    /// Nobody else has less than if nobody had been in front of the call, or it still does for them what it would have
    /// done; it still goes through if it is its caller's own; and who was in front gains nothing. But for what `isRace`
    /// names: there nobody loses more than what the first call alone takes.
    function test_whatever_is_called_first_the_call_does_what_it_would_have_done() external {
        inStates(0, 8);
    }

    function test_whatever_is_called_first_in_a_campaign() external {
        inStates(8, STATES);
    }

    function test_every_call_goes_through_in_some_state() external {
        bool[] memory seen = new bool[](SIZE);
        for (uint256 state = 0; state < STATES; ++state) {
            uint256 start = vm.snapshotState();
            reach(state);
            Call[] memory list = calls();
            for (uint256 v = 0; v < list.length; ++v) {
                uint256 here = vm.snapshotState();
                if (send(list[v].caller, list[v])) seen[v] = true;
                vm.revertToState(here);
            }
            vm.revertToState(start);
        }
        Call[] memory all = calls();
        for (uint256 v = 0; v < all.length; ++v) {
            assertTrue(seen[v] || all[v].kind == For.Protocol, all[v].name);
        }
    }

    function inStates(uint256 from, uint256 to) private {
        for (uint256 state = from; state < to; ++state) {
            uint256 start = vm.snapshotState();
            reach(state);
            Call[] memory list = calls();
            for (uint256 v = 0; v < list.length; ++v) {
                if (list[v].kind == For.Protocol) assertFalse(send(mallory, list[v]), list[v].name);
                else runInFrontOf(list[v], list);
            }
            vm.revertToState(start);
        }
    }

    /// Everything that can be called in front of a call, unless that does not go through anyway.
    function runInFrontOf(Call memory victim, Call[] memory list) private {
        (uint256 start, Wealth[] memory before) = (vm.snapshotState(), wealth());
        bool ok = send(victim.caller, victim);
        Wealth[] memory alone = wealth();
        vm.revertToState(start);
        if (!ok) return;
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i].kind == For.Protocol || !send(mallory, list[i])) continue;
            Wealth[] memory between = wealth();
            ok = send(victim.caller, victim);
            string memory pair = string.concat(list[i].name, " < ", victim.name);
            if (isRace(pair)) ok = nothingIsLost(before, alone, between, wealth());
            else ok = (ok || victim.kind == For.Anybody) && noneHarmed(before, alone, between, wealth());
            assertTrue(ok, pair);
            assertNoGain(before[ACCOUNTS - 1], wealthOf(mallory), same(list[i].name, "punish") ? penalty() : 0);
            vm.revertToState(start);
        }
    }

    function noneHarmed(Wealth[] memory before, Wealth[] memory alone, Wealth[] memory between, Wealth[] memory after_)
        private
        pure
        returns (bool)
    {
        for (uint256 i = 0; i < ACCOUNTS - 1; ++i) {
            if (!isUnharmed(before[i].money, alone[i].money, between[i].money, after_[i].money)) return false;
            if (!isUnharmed(before[i].rewards, alone[i].rewards, between[i].rewards, after_[i].rewards)) return false;
            if (!isUnharmed(before[i].shares, alone[i].shares, between[i].shares, after_[i].shares)) return false;
        }
        return true;
    }

    function isUnharmed(uint256 before, uint256 alone, uint256 between, uint256 after_) private pure returns (bool) {
        return after_ >= alone || after_ + before >= alone + between;
    }

    /// Nobody has less money than before, with only one of the calls, or with only the other.
    function nothingIsLost(
        Wealth[] memory before,
        Wealth[] memory alone,
        Wealth[] memory between,
        Wealth[] memory after_
    ) private pure returns (bool) {
        for (uint256 i = 0; i < ACCOUNTS - 1; ++i) {
            uint256 least = before[i].money < alone[i].money ? before[i].money : alone[i].money;
            if (between[i].money < least) least = between[i].money;
            if (after_[i].money < least) return false;
        }
        return true;
    }

    /// A reporter has half of a penalty, whoever it is.
    function assertNoGain(Wealth memory had, Wealth memory has, uint256 penalty_) private pure {
        assertLe(has.money, had.money + penalty_ / 2, "money");
        assertLe(has.rewards, had.rewards, "rewards");
        assertLe(has.shares, had.shares, "shares");
    }

    function penalty() private pure returns (uint256) {
        return fee(0) / 10;
    }

    /// What can be lost to another who is quicker, and is nobody's before:
    /// a segment that is open, the rest of a goal, the bounty for a report;
    /// payment or stake once a clock has passed since the window, in which the solver neither settled nor revealed;
    /// income is of the shares that there are, those of settled work among them, which anybody may have credited;
    /// and of a weight no more can leave than is left after a penalty.
    function isRace(string memory pair) private pure returns (bool) {
        string[9] memory races = [
            "claim < claim",
            "pledge < pledge",
            "punish < punish",
            "settle < forfeit",
            "reveal < forfeit",
            "forfeit < settle",
            "credit < pay income",
            "credit < collect rewards",
            "punish < leave"
        ];
        for (uint256 i = 0; i < races.length; ++i) {
            if (same(pair, races[i])) return true;
        }
        return false;
    }

    function same(string memory a, string memory b) private pure returns (bool) {
        return keccak256(bytes(a)) == keccak256(bytes(b));
    }

    /// Who submits another's permit first does what it says; who wanted to, goes on.
    function test_a_permit_in_front_of_another() external {
        address[2] memory tokens = [address(rewards), address(shares)];
        for (uint256 i = 0; i < 2; ++i) {
            (IERC20Permit token, uint256 key) = (IERC20Permit(tokens[i]), uint256(keccak256("owner")));
            bytes32 kind =
                keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
            bytes32 content = keccak256(abi.encode(kind, vm.addr(key), other, 7, 0, DEADLINE));
            content = keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), content));
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, content);
            bytes memory data = abi.encodeCall(IERC20Permit.permit, (vm.addr(key), other, 7, DEADLINE, v, r, s));
            Call memory c = Call("permit", For.Anybody, tokens[i], other, data);
            assertTrue(send(mallory, c), "first");
            assertFalse(send(other, c), "second");
            assertEq(IERC20(tokens[i]).allowance(vm.addr(key), other), 7, "allowed all the same");
            assertEq(IERC20(tokens[i]).allowance(vm.addr(key), mallory), 0, "to nobody else");
        }
    }
}

/// Moves of a game: nobody but the player who has to move makes one, in any phase, so that none is copied.
contract MovesTest is GameFixture {
    function moves() private view returns (bytes[] memory list) {
        (GameId id, bytes32 p, bytes32[] memory no) = (game, position(), new bytes32[](0));
        ProgramLeaf memory leaf = noLeaf();
        list = new bytes[](16);
        list[0] = abi.encodeCall(IDispute.revealTrace, (id, p, no));
        list[1] = abi.encodeCall(IDispute.pickCheckpoint, (id, p, 0, 0, no, 0, no));
        list[2] = abi.encodeCall(IDispute.revealStates, (id, p, no));
        list[3] = abi.encodeCall(IDispute.pickStep, (id, p, 0, 0, no, 0, no));
        list[4] = abi.encodeCall(IDispute.revealStep, (id, p, leaf, no));
        list[5] = abi.encodeCall(IDispute.revealChildren, (id, p, no));
        list[6] = abi.encodeCall(IDispute.pickChild, (id, p, 0, 0, no, leaf));
        list[7] = abi.encodeCall(IDispute.disputeNext, (id, p, leaf));
        list[8] = abi.encodeCall(IDispute.revealPage, (id, p, ""));
        list[9] = abi.encodeCall(IDispute.pickWord, (id, p, 0, ""));
        list[10] = abi.encodeCall(IDispute.revealPartials, (id, p, ""));
        list[11] = abi.encodeCall(IDispute.pickPartial, (id, p, 0, ""));
        list[12] = abi.encodeCall(IDispute.prove, (id, p, leaf, leaf, new ValueProof[](0), new Page[](0)));
        list[13] = abi.encodeCall(IDispute.proveNext, (id, p, leaf, ValueProof(0, 0, no)));
        list[14] = abi.encodeCall(IDispute.proveInvalidNest, (id, p, leaf, 0, leaf, 0, leaf));
        list[15] = abi.encodeCall(IDispute.proveInvalidHeader, (id, p, leaf, 0, leaf));
    }

    function check(Fault memory fault, Phase last) private returns (uint256 refused) {
        Players memory p = began(fault);
        while (at().phase != last) {
            bytes[] memory list = moves();
            bytes32 here = position();
            for (uint256 i = 0; i < list.length; ++i) {
                vm.prank(stranger);
                (bool ok, bytes memory why) = address(dispute).call(list[i]);
                assertFalse(ok, "a stranger moves");
                if (bytes4(why) == IDispute.NotPlayer.selector) ++refused;
                else assertEq(bytes4(why), IDispute.WrongPhase.selector, "another phase's move");
            }
            assertEq(position(), here, "position");
            play(p);
        }
    }

    function test_no_move_is_a_strangers() external {
        uint256 refused = check(Fault(2, false, 7, 2, 40, 8), Phase.Over);
        refused += check(Fault(2, true, 2, 0, 0, 8), Phase.Over);
        assertTrue(refused > 20, "in every phase the move that is awaited is refused to a stranger");
    }
}
