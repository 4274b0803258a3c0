// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Outcome, Round} from "../../../interfaces/IAudit.sol";
import {Game, Phase} from "../../../interfaces/IDispute.sol";
import {JobTerms, Segment, SegmentState, Source} from "../../../interfaces/IMarket.sol";
import {GameId, JobId, Seal, StateRoot} from "../../../types/Ids.sol";
import {JobFixture} from "./JobFixture.sol";
import {Trees} from "./Trees.sol";

/// Five accounts that do anything the rules allow, in any order. An action that is not allowed now is passed over; one
/// that is allowed and reverts fails the test.
contract Crowd is JobFixture {
    uint256 private constant MAX_JOBS = 3;

    address[5] public accounts;
    mapping(JobId job => uint256) public refunded;
    mapping(JobId job => mapping(uint32 segment => uint256)) public payments;
    /// Fees of all that settled.
    uint256 public fees;
    /// Commitments whose seal hides nothing, how often the others were attested right, and who was punished, by the key
    /// of a round.
    mapping(bytes32 round => bool) private hidden;
    mapping(bytes32 round => uint256) private right;
    mapping(bytes32 round => mapping(address auditor => bool)) private punished;
    /// Weight that the draw of a round goes by, with all that was ever slashed of it before; and what was slashed so far.
    mapping(bytes32 round => mapping(address auditor => uint256)) private atStake;
    mapping(address auditor => uint256) private slashed;
    /// How often each action was more than passed over.
    mapping(string action => uint256) public done;

    function setUp() public override {
        super.setUp();
        vm.roll(1000);
        fund(stranger, PURSE);
        accounts = [buyer, solver, other, challenger, stranger];
    }

    // ---------------------------------------------------------------- actions

    /// As short as terms allow, so that leaving ends while audits run.
    function unbonding() internal pure override returns (uint64) {
        return WINDOW + 3 * CLOCK;
    }

    /// Time passes, and with it blocks: sometimes more than draws are remembered for.
    function wait(uint256 time) external {
        pass(time % 256 == 0 ? DEADLINE : time % 150);
        vm.roll(vm.getBlockNumber() + 1 + ((time >> 8) % 16 == 0 ? 300 : 0));
    }

    function deposit(uint256 account, uint256 amount) external {
        address a = accounts[account % 5];
        deposit(a, bound(amount, 0, money.balanceOf(a)));
    }

    function withdraw(uint256 account, uint256 amount) external {
        address a = accounts[account % 5];
        amount = bound(amount, 0, free(a));
        vm.prank(a);
        stake.withdraw(amount);
    }

    function collect(uint256 account) external {
        address a = accounts[account % 5];
        if (market.owed(a) == 0) return;
        vm.prank(a);
        market.withdraw();
    }

    function postAnother() external {
        if (money.balanceOf(buyer) < ESCROW) return;
        if (market.jobCount() == MAX_JOBS || vm.getBlockTimestamp() >= DEADLINE) return;
        JobTerms memory t = terms();
        t.auditRate = 40_000;
        post(t);
    }

    function claim(uint256 account, uint256 job_, uint256 segment) external {
        address a = accounts[account % 5];
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            if (!mayClaim(a, i)) continue;
            uint32 attempt = at(i).attempt;
            claim(a, i);
            ++done[attempt == 0 ? "claim" : "claim again"];
            return;
        }
    }

    function mayClaim(address a, uint32 i) private view returns (bool) {
        Segment memory s = at(i);
        if (s.state != SegmentState.Open || market.barred(job, a) || free(a) < STAKE) return false;
        if (vm.getBlockTimestamp() <= s.lapsedUntil && s.lapsed == a) return false;
        if (vm.getBlockTimestamp() > DEADLINE || (vm.getBlockTimestamp() < s.heirUntil && s.heir != a)) return false;
        Source[] memory sources = spec(i).inputs;
        for (uint256 k = 0; k < sources.length; ++k) {
            if (sources[k].segment != INITIAL && at(sources[k].segment).state < SegmentState.Committed) return false;
        }
        return true;
    }

    /// The solver commits, with a seal that hides nothing if it takes no care.
    function commit(uint256 job_, uint256 segment, uint256 care) external {
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            Segment memory s = at(i);
            if (s.state != SegmentState.Claimed || vm.getBlockTimestamp() > s.until) continue;
            bool careless = care % 8 == 0;
            hidden[key(i)] = careless;
            Seal seal = careless ? Seal.wrap(keccak256("nothing")) : sealed_(i, s.solver);
            vm.roll(vm.getBlockNumber() + 1);
            for (uint256 a = 0; a < 5; ++a) {
                atStake[key(i)][accounts[a]] = audit.weightOf(accounts[a]) + slashed[accounts[a]];
            }
            vm.prank(s.solver);
            market.commit(job, i, s.inputRoot, outputs[i], seal, CID);
            vm.roll(vm.getBlockNumber() + 2);
            ++done["commit"];
            return;
        }
    }

    function settle(uint256 job_, uint256 segment) external {
        for (uint256 k = 0; k < slots(); ++k) {
            trySettle(choose(job_, segment, k));
        }
    }

    function forfeit(uint256 job_, uint256 segment) external {
        for (uint256 k = 0; k < slots(); ++k) {
            tryForfeit(choose(job_, segment, k));
        }
    }

    function expire(uint256 job_, uint256 segment) external {
        for (uint256 k = 0; k < slots(); ++k) {
            tryExpire(choose(job_, segment, k));
        }
    }

    function void(uint256 job_) external {
        for (uint256 k = 0; k < SEGMENTS; ++k) {
            tryVoid(choose(job_, 0, k));
        }
    }

    function refund(uint256 job_) external {
        choose(job_, 0, 0);
        tryRefund();
    }

    function challenge(uint256 account, uint256 job_, uint256 segment) external {
        address a = accounts[account % 5];
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            Segment memory s = at(i);
            if (s.state != SegmentState.Committed || vm.getBlockTimestamp() > s.until || free(a) < STAKE) continue;
            vm.prank(a);
            dispute.challenge(job, i, spec(i), s.seal);
            ++done["challenge"];
            return;
        }
    }

    /// The defender of some game shows the trace, or blunders and loses.
    function reveal(uint256 game, uint256 care) external {
        bool blunder = care % 4 == 0;
        for (uint64 k = 0; k < dispute.gameCount(); ++k) {
            GameId id = GameId.wrap(uint64(1 + (game % dispute.gameCount() + k) % dispute.gameCount()));
            Game memory g = dispute.games(id);
            if (g.phase != Phase.RevealTrace || vm.getBlockTimestamp() < g.since) continue;
            if (vm.getBlockTimestamp() > g.since + g.defenderLeft) continue;
            job = g.job;
            bytes32[] memory list = blunder ? new bytes32[](5) : checkpoints(g.segment, at(g.segment));
            vm.prank(g.defender);
            dispute.revealTrace(id, g.position, list);
            ++done[blunder ? "blunder" : "reveal"];
            return;
        }
    }

    // ---------------------------------------------------------------- audits

    function enroll(uint256 account, uint256 amount) external {
        address a = accounts[account % 5];
        amount = bound(amount, 0, free(a) < 100_000 ? free(a) : 100_000);
        vm.prank(a);
        audit.enroll(amount);
        ++done["enroll"];
    }

    function leave(uint256 account, uint256 amount) external {
        address a = accounts[account % 5];
        if (audit.weightOf(a) == 0) return;
        amount = amount % 2 == 0 ? audit.weightOf(a) : bound(amount, 1, audit.weightOf(a));
        vm.prank(a);
        audit.leave(amount);
        ++done["leave"];
    }

    function finishLeaving(uint256 account) external {
        address a = accounts[account % 5];
        (uint256 amount, uint64 until) = audit.leavingOf(a);
        if (amount == 0 || vm.getBlockTimestamp() < until) return;
        audit.finishLeaving(a);
        checkStillSlashable(a);
        ++done["finish leaving"];
    }

    function draw(uint256 job_, uint256 segment) external {
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            Round memory r = round(i);
            if (r.outcome != Outcome.Open || r.seed != 0 || vm.getBlockNumber() <= r.drawBlock) continue;
            if (vm.getBlockTimestamp() > r.attestUntil) continue;
            bool missed = blockhash(r.drawBlock) == 0;
            audit.draw(job, i, at(i).attempt);
            ++done[missed ? "draw again" : "draw"];
            return;
        }
    }

    /// An auditor who is drawn attests what is right, or something else.
    function attest(uint256 account, uint256 job_, uint256 segment, uint256 care) external {
        address a = accounts[account % 5];
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            if (!mayAttest(a, i)) continue;
            bool wrong = care % 4 == 0;
            (Seal seal, uint32 attempt) = (at(i).seal, at(i).attempt);
            Seal attestation = wrong ? seal : sealed_(i, a); // a copy of the solver's
            vm.prank(a);
            audit.attest(job, i, attempt, seal, attestation);
            if (!wrong) ++right[key(i)];
            ++done[wrong ? "attest wrong" : "attest right"];
            return;
        }
    }

    function mayAttest(address a, uint32 i) private view returns (bool) {
        (Round memory r, uint32 attempt) = (round(i), at(i).attempt);
        if (r.outcome != Outcome.Open || vm.getBlockTimestamp() > r.attestUntil || r.attestations == r.seats) {
            return false;
        }
        if (Seal.unwrap(audit.attestationOf(job, i, attempt, a)) != 0) return false;
        if (r.seed == 0 && (vm.getBlockNumber() <= r.drawBlock || blockhash(r.drawBlock) == 0)) return false;
        return audit.isDrawn(job, i, attempt, a);
    }

    function revealRoot(uint256 job_, uint256 segment) external {
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            Round memory r = round(i);
            if (r.outcome != Outcome.Open || vm.getBlockTimestamp() <= r.attestUntil) continue;
            if (r.traceRoot != 0 || hidden[key(i)]) continue;
            audit.reveal(job, i, at(i).attempt, rootOf(i));
            ++done["reveal the root"];
            return;
        }
    }

    function punish(uint256 reporter, uint256 job_, uint256 segment, uint256 account) external {
        address a = accounts[account % 5];
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(job_, segment, k);
            (Round memory r, uint32 attempt) = (round(i), at(i).attempt);
            if (r.outcome != Outcome.Settled || punished[key(i)][a]) continue;
            Seal attestation = audit.attestationOf(job, i, attempt, a);
            bool silent = Seal.unwrap(attestation) == 0;
            if (!silent && attestation == sealed_(i, a)) continue;
            if (silent && (r.seed == 0 || r.attestations == r.seats || r.drawBlock != r.committedIn + 1)) continue;
            if (silent && !audit.isDrawn(job, i, attempt, a)) continue;
            uint256 before = locked(a);
            vm.prank(accounts[reporter % 5]);
            audit.punish(job, i, attempt, a);
            slashed[a] += before - locked(a);
            punished[key(i)][a] = true;
            ++done[silent ? "punish silence" : "punish a wrong attestation"];
            return;
        }
    }

    function sweep() external {
        stake.sweep();
        market.sweep();
    }

    function timeout(uint256 game) external {
        if (dispute.gameCount() > 0) tryTimeout(chooseGame(game));
    }

    function close(uint256 game) external {
        if (dispute.gameCount() > 0) tryClose(chooseGame(game));
    }

    // ---------------------------------------------------------------- exits

    /// Everybody leaves: what time allows is done until nothing is left to do.
    function exitAll() external {
        pass(DEADLINE);
        for (uint64 g = 1; g <= dispute.gameCount(); ++g) {
            tryClose(GameId.wrap(g));
            tryTimeout(GameId.wrap(g));
        }
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            for (uint32 i = 0; i < SEGMENTS; ++i) {
                choose(j - 1, i, 0);
                tryExpire(i);
                tryVoid(i);
                trySettle(i);
                tryForfeit(i);
            }
            tryRefund();
        }
        for (uint256 a = 0; a < 5; ++a) {
            this.leave(a, audit.weightOf(accounts[a]));
        }
        pass(unbonding());
        for (uint256 a = 0; a < 5; ++a) {
            this.finishLeaving(a);
            this.collect(a);
            this.withdraw(a, free(accounts[a]));
        }
        this.sweep();
        collectRewards();
    }

    function collectRewards() private {
        pass(EPOCH);
        for (uint64 epoch = 0; epoch < emission.epochAt(uint64(vm.getBlockTimestamp())); ++epoch) {
            for (uint256 a = 0; a < 5; ++a) {
                if (emission.claimable(epoch, accounts[a]) > 0) emission.claim(epoch, accounts[a]);
            }
        }
    }

    function trySettle(uint32 i) private {
        Segment memory s = at(i);
        if (s.state != SegmentState.Committed || vm.getBlockTimestamp() <= s.until || s.games > 0) return;
        Source[] memory sources = spec(i).inputs;
        for (uint256 k = 0; k < sources.length; ++k) {
            if (sources[k].segment != INITIAL && at(sources[k].segment).state != SegmentState.Settled) return;
        }
        if (inputAttempts(i) != s.inputAttempts || hidden[key(i)]) return;
        market.settle(job, i, spec(i), round(i).traceRoot == 0 ? rootOf(i) : bytes32(0));
        uint256 auditors = right[key(i)];
        payments[job][i] += s.price + (auditors == 0 ? 0 : pot(i) / auditors * auditors);
        fees += fee(i);
        ++done["settle"];
    }

    function tryForfeit(uint32 i) private {
        Segment memory s = at(i);
        if (s.state != SegmentState.Committed || vm.getBlockTimestamp() <= s.until + CLOCK || s.games > 0) return;
        if (inputAttempts(i) != s.inputAttempts || round(i).traceRoot != 0) return;
        market.forfeit(job, i, spec(i));
        ++done["forfeit"];
    }

    function tryExpire(uint32 i) private {
        Segment memory s = at(i);
        if (s.state != SegmentState.Claimed || vm.getBlockTimestamp() <= s.until) return;
        market.expire(job, i);
        ++done["expire"];
    }

    function tryVoid(uint32 i) private {
        Segment memory s = at(i);
        if (!isHeld(s) || inputAttempts(i) == s.inputAttempts) return;
        market.void(job, i, spec(i));
        ++done[s.state == SegmentState.Claimed ? "void a claim" : "void a commitment"];
    }

    function tryRefund() private {
        if (vm.getBlockTimestamp() <= DEADLINE && settled() < SEGMENTS) return;
        uint256 amount = ESCROW - reserved() - spent() - refunded[job];
        if (amount == 0) return;
        market.refund(job);
        refunded[job] += amount;
        ++done["refund"];
    }

    function tryTimeout(GameId id) private {
        Game memory g = dispute.games(id);
        if (g.phase == Phase.Over) return;
        uint32 left = g.phase == Phase.RevealTrace ? g.defenderLeft : g.challengerLeft;
        if (vm.getBlockTimestamp() <= g.since + left) return;
        dispute.timeout(id);
        ++done[g.phase == Phase.RevealTrace ? "silence of the defender" : "silence of the challenger"];
    }

    function tryClose(GameId id) private {
        Game memory g = dispute.games(id);
        if (g.phase == Phase.Over || market.segments(g.job, g.segment).attempt == g.attempt) return;
        dispute.close(id);
        ++done["close"];
    }

    // ---------------------------------------------------------------- helpers

    /// Segments of all jobs.
    function slots() private view returns (uint256) {
        return market.jobCount() * SEGMENTS;
    }

    /// The k-th of them, counted from one at random.
    function choose(uint256 job_, uint256 segment, uint256 k) private returns (uint32) {
        uint256 slot = (job_ % market.jobCount() * SEGMENTS + segment % SEGMENTS + k) % slots();
        job = JobId.wrap(uint64(1 + slot / SEGMENTS));
        return uint32(slot % SEGMENTS);
    }

    function chooseGame(uint256 game) private view returns (GameId) {
        uint64 count = dispute.gameCount();
        return GameId.wrap(count == 0 ? 0 : uint64(1 + game % count));
    }

    function key(uint32 i) private view returns (bytes32) {
        return keccak256(abi.encode(job, i, at(i).attempt));
    }

    function round(uint32 i) private view returns (Round memory) {
        return audit.rounds(job, i, at(i).attempt);
    }

    function rootOf(uint32 i) private view returns (bytes32) {
        return Trees.root(checkpoints(i, at(i)));
    }

    /// A solver's seal of the right trace root, or an auditor's attestation.
    function sealed_(uint32 i, address account) private view returns (Seal) {
        return Seal.wrap(sha256(abi.encodePacked(rootOf(i), account)));
    }

    function checkpoints(uint32 i, Segment memory s) private view returns (bytes32[] memory list) {
        list = new bytes32[](5);
        for (uint256 k = 0; k < 5; ++k) {
            list[k] = keccak256(abi.encode("checkpoint", k));
        }
        list[0] = StateRoot.unwrap(s.inputRoot);
        list[4] = Trees.root(outputs[i]);
    }

    function inputAttempts(uint32 i) private view returns (uint64 sum) {
        Source[] memory sources = spec(i).inputs;
        for (uint256 k = 0; k < sources.length; ++k) {
            if (sources[k].segment != INITIAL) sum += at(sources[k].segment).attempt;
        }
    }

    // ---------------------------------------------------------------- what must hold

    function checkStakesHeld() external view {
        uint256 sum = stake.burned();
        for (uint256 i = 0; i < 5; ++i) {
            sum += free(accounts[i]) + locked(accounts[i]);
        }
        assertEq(money.balanceOf(address(stake)), sum, "stakes held");
    }

    function checkEscrowHeld() external view {
        uint256 sum = market.burned();
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            (, JobTerms memory t,, uint256 spent_,) = market.jobs(JobId.wrap(j));
            sum += t.escrow - spent_ - refunded[JobId.wrap(j)];
        }
        for (uint256 i = 0; i < 5; ++i) {
            sum += market.owed(accounts[i]);
        }
        assertEq(money.balanceOf(address(market)), sum, "escrow held");
    }

    /// Locked is the stake of every claim and commitment, the bond of every running game, and an auditor's weight, in draws
    /// or leaving; and nothing else. Every attempt counts its running games.
    function checkLockedAndGames() external view {
        address[5] memory who = accounts;
        uint256[5] memory sums;
        Segment[] memory all = new Segment[](slots());
        uint256[] memory running = new uint256[](all.length);
        for (uint32 i = 0; i < all.length; ++i) {
            all[i] = market.segments(JobId.wrap(1 + i / SEGMENTS), i % SEGMENTS);
            if (isHeld(all[i])) sums[indexOf(who, all[i].solver)] += STAKE;
        }
        for (uint64 g = 1; g <= dispute.gameCount(); ++g) {
            Game memory game = dispute.games(GameId.wrap(g));
            if (game.phase == Phase.Over) continue;
            sums[indexOf(who, game.challenger)] += game.bond;
            uint256 slot = (JobId.unwrap(game.job) - 1) * SEGMENTS + game.segment;
            if (game.attempt == all[slot].attempt) ++running[slot];
        }
        for (uint256 i = 0; i < all.length; ++i) {
            assertEq(all[i].games, running[i], "games");
        }
        uint256 weights = 0;
        for (uint256 i = 0; i < 5; ++i) {
            (uint256 leaving,) = audit.leavingOf(who[i]);
            assertEq(locked(who[i]), sums[i] + leaving + audit.weightOf(who[i]), "locked");
            weights += audit.weightOf(who[i]);
        }
        assertEq(audit.totalWeight(), weights, "all weight");
    }

    function isHeld(Segment memory s) private pure returns (bool) {
        return s.state == SegmentState.Claimed || s.state == SegmentState.Committed;
    }

    function indexOf(address[5] memory who, address account) private pure returns (uint256 i) {
        while (who[i] != account) ++i;
    }

    /// After stake was unlocked: of what could still be slashed, for as long as games can last, nothing was.
    function checkStillSlashable(address a) private {
        for (uint256 k = 0; k < slots(); ++k) {
            uint32 i = choose(0, 0, k);
            if (round(i).outcome != Outcome.Open || vm.getBlockTimestamp() > at(i).until + 2 * CLOCK) continue;
            assertLe(atStake[key(i)][a], audit.weightOf(a) + slashed[a], "unlocked while slashable");
        }
    }

    /// Every settled segment paid its fee, once: it was burned, and earned points.
    function checkFees() external view {
        (uint256 accrued, uint256 minted) = (0, 0);
        for (uint64 epoch = 0; epoch <= emission.epochAt(uint64(vm.getBlockTimestamp())); ++epoch) {
            accrued += emission.fees(epoch);
            uint256 most = emission.fees(epoch) * RATIO / 1e18;
            minted += most < emission.budget(epoch) ? most : emission.budget(epoch);
        }
        assertEq(accrued, fees, "accrued");
        assertLe(rewards.totalSupply(), minted, "minted");
        assertLe(market.burned(), fees, "burned");
    }

    /// Each price is reserved while the segment is held, then paid once, and never more than the escrow.
    function checkPrices() external view {
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            JobId id = JobId.wrap(j);
            (,, uint256 reserved_, uint256 spent_, uint32 settled_) = market.jobs(id);
            (uint256 held, uint256 paid, uint256 count) = (0, 0, 0);
            for (uint32 k = 0; k < SEGMENTS; ++k) {
                Segment memory s = market.segments(id, k);
                if (isHeld(s)) held += cost(k);
                if (s.state == SegmentState.Settled) ++count;
                assertEq(payments[id][k] > 0 ? 1 : 0, s.state == SegmentState.Settled ? 1 : 0, "paid once");
                assertLe(payments[id][k], cost(k), "price and pot");
                paid += payments[id][k];
            }
            assertEq(reserved_, held, "reserved");
            assertEq(spent_, paid, "spent");
            assertEq(settled_, count, "settled");
            assertLe(reserved_ + spent_ + refunded[id], ESCROW, "within the escrow");
        }
    }

    /// After exitAll: nothing is locked, reserved, owed or held.
    function checkNothingIsLeft() external view {
        uint256 purses = money.balanceOf(BURNED);
        for (uint256 i = 0; i < 5; ++i) {
            assertEq(locked(accounts[i]), 0, "locked");
            assertEq(market.owed(accounts[i]), 0, "owed");
            purses += money.balanceOf(accounts[i]);
        }
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            (,, uint256 reserved_, uint256 spent_,) = market.jobs(JobId.wrap(j));
            assertEq(reserved_, 0, "reserved");
            assertEq(spent_ + refunded[JobId.wrap(j)], ESCROW, "paid or refunded");
        }
        assertEq(money.balanceOf(address(stake)), 0, "held by Stake");
        assertEq(money.balanceOf(address(market)), 0, "held by Market");
        assertEq(purses, 5 * PURSE, "no unit is lost");
    }
}
