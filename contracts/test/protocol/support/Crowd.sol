// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, Phase} from "../../../interfaces/IDispute.sol";
import {JobTerms, Segment, SegmentState, Source} from "../../../interfaces/IMarket.sol";
import {GameId, JobId, Seal, StateRoot} from "../../../types/Ids.sol";
import {JobFixture} from "./JobFixture.sol";
import {Trees} from "./Trees.sol";

/// Five accounts that do anything the rules allow, in any order. An action that is not allowed now is passed over; one
/// that is allowed and reverts fails the test.
contract Crowd is JobFixture {
    uint256 private constant MAX_JOBS = 2;

    address[5] public accounts;
    mapping(JobId job => uint256) public refunded;
    mapping(JobId job => mapping(uint32 segment => uint256)) public payments;
    /// How often each action was more than passed over.
    mapping(string action => uint256) public done;

    function setUp() public override {
        super.setUp();
        fund(stranger, PURSE);
        accounts = [buyer, solver, other, challenger, stranger];
    }

    // ---------------------------------------------------------------- actions

    function wait(uint256 time) external {
        pass(time % 64 == 0 ? DEADLINE : time % 300);
    }

    function deposit(uint256 account, uint256 amount) external {
        deposit(accounts[account % 5], amount % 1000);
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
        if (market.jobCount() < MAX_JOBS && vm.getBlockTimestamp() < DEADLINE) post();
    }

    function claim(uint256 account, uint256 job_, uint256 segment) external {
        address a = accounts[account % 5];
        for (uint32 i = choose(job_, segment); i < SEGMENTS; ++i) {
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
        if (vm.getBlockTimestamp() > DEADLINE || (vm.getBlockTimestamp() < s.heirUntil && s.heir != a)) return false;
        Source[] memory sources = spec(i).inputs;
        for (uint256 k = 0; k < sources.length; ++k) {
            if (sources[k].segment != INITIAL && at(sources[k].segment).state < SegmentState.Committed) return false;
        }
        return true;
    }

    function commit(uint256 job_, uint256 segment) external {
        for (uint32 i = choose(job_, segment); i < SEGMENTS; ++i) {
            Segment memory s = at(i);
            if (s.state != SegmentState.Claimed || vm.getBlockTimestamp() > s.until) continue;
            bytes32 root = Trees.root(checkpoints(i, s));
            Seal seal = Seal.wrap(sha256(abi.encodePacked(root, s.solver)));
            vm.prank(s.solver);
            market.commit(job, i, s.inputRoot, outputs[i], seal, CID);
            ++done["commit"];
            return;
        }
    }

    function settle(uint256 job_, uint256 segment) external {
        trySettle(choose(job_, segment));
    }

    function expire(uint256 job_, uint256 segment) external {
        tryExpire(choose(job_, segment));
    }

    function void(uint256 job_) external {
        for (uint32 i = choose(job_, 0); i < SEGMENTS; ++i) {
            tryVoid(i);
        }
    }

    function refund(uint256 job_) external {
        choose(job_, 0);
        tryRefund();
    }

    function challenge(uint256 account, uint256 job_, uint256 segment) external {
        address a = accounts[account % 5];
        for (uint32 i = choose(job_, segment); i < SEGMENTS; ++i) {
            Segment memory s = at(i);
            if (s.state != SegmentState.Committed || vm.getBlockTimestamp() > s.until || free(a) < STAKE) continue;
            vm.prank(a);
            dispute.challenge(job, i, spec(i), s.seal);
            ++done["challenge"];
            return;
        }
    }

    /// The defender shows the trace, or blunders and loses.
    function reveal(uint256 game, uint256 care) external {
        bool blunder = care % 2 == 0;
        Game memory g = dispute.games(chooseGame(game));
        if (g.phase != Phase.RevealTrace || vm.getBlockTimestamp() > g.since + g.defenderLeft) return;
        job = g.job;
        bytes32[] memory list = blunder ? new bytes32[](5) : checkpoints(g.segment, at(g.segment));
        GameId id = chooseGame(game);
        vm.prank(g.defender);
        dispute.revealTrace(id, g.position, list);
        ++done[blunder ? "blunder" : "reveal"];
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
                choose(j - 1, i);
                tryExpire(i);
                tryVoid(i);
                trySettle(i);
            }
            tryRefund();
        }
        for (uint256 a = 0; a < 5; ++a) {
            this.collect(a);
            this.withdraw(a, free(accounts[a]));
        }
    }

    function trySettle(uint32 i) private {
        Segment memory s = at(i);
        if (s.state != SegmentState.Committed || vm.getBlockTimestamp() <= s.until || s.games > 0) return;
        Source[] memory sources = spec(i).inputs;
        for (uint256 k = 0; k < sources.length; ++k) {
            if (sources[k].segment != INITIAL && at(sources[k].segment).state != SegmentState.Settled) return;
        }
        if (inputsKey(i) != s.inputsKey) return;
        settle(i);
        payments[job][i] += s.price;
        ++done["settle"];
    }

    function tryExpire(uint32 i) private {
        Segment memory s = at(i);
        if (s.state != SegmentState.Claimed || vm.getBlockTimestamp() <= s.until) return;
        market.expire(job, i);
        ++done["expire"];
    }

    function tryVoid(uint32 i) private {
        Segment memory s = at(i);
        bool held = s.state == SegmentState.Claimed || s.state == SegmentState.Committed;
        if (!held || inputsKey(i) == s.inputsKey) return;
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

    function choose(uint256 job_, uint256 segment) private returns (uint32) {
        job = JobId.wrap(uint64(1 + job_ % market.jobCount()));
        return uint32(segment % SEGMENTS);
    }

    function chooseGame(uint256 game) private view returns (GameId) {
        uint64 count = dispute.gameCount();
        return GameId.wrap(count == 0 ? 0 : uint64(1 + game % count));
    }

    function checkpoints(uint32 i, Segment memory s) private view returns (bytes32[] memory list) {
        list = new bytes32[](5);
        for (uint256 k = 0; k < 5; ++k) {
            list[k] = keccak256(abi.encode("checkpoint", k));
        }
        list[0] = StateRoot.unwrap(s.inputRoot);
        list[4] = Trees.root(outputs[i]);
    }

    function inputsKey(uint32 i) private view returns (bytes32) {
        Source[] memory sources = spec(i).inputs;
        uint256[] memory attempts = new uint256[](sources.length);
        for (uint256 k = 0; k < sources.length; ++k) {
            if (sources[k].segment != INITIAL) attempts[k] = at(sources[k].segment).attempt;
        }
        return keccak256(abi.encodePacked(attempts));
    }

    // ---------------------------------------------------------------- what must hold

    function checkStakesHeld() external view {
        uint256 sum = 0;
        for (uint256 i = 0; i < 5; ++i) {
            sum += free(accounts[i]) + locked(accounts[i]);
        }
        assertEq(money.balanceOf(address(stake)), sum, "stakes held");
    }

    function checkEscrowHeld() external view {
        uint256 sum = 0;
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            (, JobTerms memory t,, uint256 spent_,) = market.jobs(JobId.wrap(j));
            sum += t.escrow - spent_ - refunded[JobId.wrap(j)];
        }
        for (uint256 i = 0; i < 5; ++i) {
            sum += market.owed(accounts[i]);
        }
        assertEq(money.balanceOf(address(market)), sum, "escrow held");
    }

    /// Locked is the stake of every claim and commitment and the bond of every running game, and nothing else.
    function checkLocked() external view {
        for (uint256 i = 0; i < 5; ++i) {
            uint256 sum = 0;
            for (uint64 j = 1; j <= market.jobCount(); ++j) {
                for (uint32 k = 0; k < SEGMENTS; ++k) {
                    Segment memory s = market.segments(JobId.wrap(j), k);
                    bool held = s.state == SegmentState.Claimed || s.state == SegmentState.Committed;
                    if (held && s.solver == accounts[i]) sum += STAKE;
                }
            }
            for (uint64 g = 1; g <= dispute.gameCount(); ++g) {
                Game memory game = dispute.games(GameId.wrap(g));
                if (game.phase != Phase.Over && game.challenger == accounts[i]) sum += game.bond;
            }
            assertEq(locked(accounts[i]), sum, "locked");
        }
    }

    /// Each price is reserved while the segment is held, then paid once, and never more than the escrow.
    function checkPrices() external view {
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            JobId id = JobId.wrap(j);
            (,, uint256 reserved_, uint256 spent_, uint32 settled_) = market.jobs(id);
            (uint256 held, uint256 paid, uint256 count) = (0, 0, 0);
            for (uint32 k = 0; k < SEGMENTS; ++k) {
                Segment memory s = market.segments(id, k);
                if (s.state == SegmentState.Claimed || s.state == SegmentState.Committed) held += s.price;
                if (s.state == SegmentState.Settled) ++count;
                assertEq(payments[id][k], s.state == SegmentState.Settled ? s.price : 0, "paid once");
                paid += payments[id][k];
            }
            assertEq(reserved_, held, "reserved");
            assertEq(spent_, paid, "spent");
            assertEq(settled_, count, "settled");
            assertLe(reserved_ + spent_ + refunded[id], ESCROW, "within the escrow");
        }
    }

    function checkGames() external view {
        for (uint64 j = 1; j <= market.jobCount(); ++j) {
            for (uint32 k = 0; k < SEGMENTS; ++k) {
                Segment memory s = market.segments(JobId.wrap(j), k);
                uint256 running = 0;
                for (uint64 g = 1; g <= dispute.gameCount(); ++g) {
                    Game memory game = dispute.games(GameId.wrap(g));
                    bool here = JobId.unwrap(game.job) == j && game.segment == k && game.attempt == s.attempt;
                    if (here && game.phase != Phase.Over) ++running;
                }
                assertEq(s.games, running, "games");
            }
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
