// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {GroupProof, JobTerms, SegmentSpec, Source} from "../../interfaces/IMarket.sol";
import {GameId, PlanRoot, Seal, StateRoot} from "../../types/Ids.sol";
import {AuditFixture} from "./support/AuditFixture.sol";
import {GasTable} from "./support/GasTable.sol";
import {Trees} from "./support/Trees.sol";

/// What the calls of Market, Stake, Audit and Dispute cost at the most participants and the largest sizes, with cold
/// storage and without the transaction's own 21,000 and its calldata: the table contracts/test/snapshots/Protocol.json.
contract GasTest is AuditFixture, GasTable {
    uint256 private constant AUDITORS = 64;

    address[AUDITORS] private auditors;
    address[] private drawn;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < AUDITORS; ++i) {
            auditors[i] = makeAddr(string.concat("auditor ", vm.toString(i)));
            enroll(auditors[i], 3 * WEIGHT);
            roll(1);
        }
    }

    function table(string memory name) private returns (uint256) {
        return enter("Protocol", name);
    }

    /// As many attestations as there are seats, in a draw of 64 accounts.
    function fillSeats() private {
        uint256 seats = round(0).seats;
        for (uint256 label = 0; drawn.length < seats; ++label) {
            setSeed(0, label);
            delete drawn;
            for (uint256 i = 0; i < AUDITORS && drawn.length < seats; ++i) {
                if (isDrawn(0, auditors[i])) drawn.push(auditors[i]);
            }
        }
        for (uint256 i = 0; i < seats; ++i) {
            cold();
            attest(drawn[i], 0);
            if (i == 0) table("attest, the first, which draws");
        }
        table("attest, the last of ten");
    }

    function test_gas_of_a_segment_with_all_seats_taken() external {
        cold();
        job = post(asksForAll());
        table("post");
        bytes32[] memory proof = planProof(0);
        GroupProof[] memory inputs = inputProofs(0);
        (SegmentSpec memory s, Seal seal) = (spec(0), sealOf(0, solver));
        cold();
        vm.prank(solver);
        market.claim(job, 0, s, proof, inputs);
        table("claim, two groups");
        StateRoot root = at(0).inputRoot;
        cold();
        vm.prank(solver);
        market.commit(job, 0, root, outputs[0], seal, CID);
        table("commit, two groups");
        roll(2);
        fillSeats();
        pass(WINDOW / 2 + 1);
        uint256 before = vm.snapshotState();
        cold();
        audit.reveal(job, 0, 0, traceRoot(0));
        table("reveal");
        vm.revertToState(before);
        pass(WINDOW);
        cold();
        market.settle(job, 0, s, traceRoot(0));
        table("settle, ten auditors, nobody known before");
        cold();
        vm.prank(solver);
        market.withdraw();
        table("withdraw pay");
        cold();
        market.sweep();
        table("sweep fees");
        vm.warp(DEADLINE + 1);
        cold();
        market.refund(job);
        table("refund");
    }

    /// Transactions and calldata included, for a segment of two groups, of a solver who has worked before.
    function test_an_undisputed_segment_costs_at_most_500_000_gas() external {
        job = post();
        deliver(solver, 0);
        settleLater(0);
        uint256 total = 3 * 21_000;
        cold();
        claim(solver, 1);
        total += table("claim, a later one");
        cold();
        commit(solver, 1);
        total += table("commit, a later one");
        pass(WINDOW + 1);
        SegmentSpec memory s = spec(1);
        cold();
        market.settle(job, 1, s, traceRoot(1));
        total += table("settle, no auditor, solver and buyer known");
        total += calldataGas(abi.encodeCall(market.claim, (job, 1, s, planProof(1), inputProofs(1))));
        total += calldataGas(abi.encodeCall(market.commit, (job, 1, at(1).inputRoot, outputs[1], at(1).seal, CID)));
        total += calldataGas(abi.encodeCall(market.settle, (job, 1, s, traceRoot(1))));
        vm.snapshotValue("Protocol", "an undisputed segment, three transactions", total);
        assertLe(total, 500_000, "claim, commit and settle");
    }

    function calldataGas(bytes memory data) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < data.length; ++i) {
            sum += data[i] == 0 ? 4 : 16;
        }
    }

    function test_gas_of_the_largest_segment() external {
        SegmentSpec memory s = spec(0);
        s.inputs = new Source[](256);
        bytes32[] memory groups = new bytes32[](256);
        for (uint32 i = 0; i < 256; ++i) {
            groups[i] = keccak256(abi.encode(i));
            s.inputs[i] = Source(INITIAL, i);
        }
        JobTerms memory t = asksForAll();
        (t.initialGroups, t.segments) = (256, 1);
        t.planRoot = PlanRoot.wrap(Trees.leaf(abi.encode(s)));
        t.initialRoot = StateRoot.wrap(Trees.root(groups));
        job = post(t);
        bytes32[][] memory levels = Trees.levels(groups);
        GroupProof[] memory inputs = new GroupProof[](256);
        for (uint256 i = 0; i < 256; ++i) {
            bytes32[] memory proof = new bytes32[](8);
            for (uint256 level = 0; level < 8; ++level) {
                proof[level] = levels[level][(i >> level) ^ 1];
            }
            inputs[i] = GroupProof(groups[i], proof);
        }
        cold();
        vm.prank(solver);
        market.claim(job, 0, s, new bytes32[](0), inputs);
        table("claim, 256 groups");
        (StateRoot root, Seal seal) = (at(0).inputRoot, sealOf(0, solver));
        bytes memory cid = new bytes(128);
        cold();
        vm.prank(solver);
        market.commit(job, 0, root, groups, seal, cid);
        table("commit, 256 groups");
        pass(WINDOW + 1);
        cold();
        market.settle(job, 0, s, traceRoot(0));
        table("settle, 256 groups");
    }

    function test_gas_of_other_ends_of_a_segment() external {
        deliver(solver, 0);
        claim(other, 1);
        uint256 before = vm.snapshotState();
        pass(LEASE + 1);
        cold();
        market.expire(job, 1);
        table("expire");
        vm.revertToState(before);
        commit(other, 1);
        pass(WINDOW + CLOCK + 1);
        SegmentSpec memory s = spec(0);
        cold();
        market.forfeit(job, 0, s);
        table("forfeit");
        s = spec(1);
        cold();
        market.void(job, 1, s);
        table("void a commitment");
        cold();
        stake.sweep();
        table("sweep stakes");
    }

    function test_gas_of_disputes() external {
        deliver(solver, 0);
        (SegmentSpec memory s, Seal seal) = (spec(0), at(0).seal);
        vm.prank(other);
        dispute.challenge(job, 0, s, seal);
        cold();
        vm.prank(challenger);
        dispute.challenge(job, 0, s, seal);
        table("challenge");
        pass(WINDOW + CLOCK);
        cold();
        dispute.timeout(GameId.wrap(1));
        table("timeout of the defender");
        cold();
        dispute.close(GameId.wrap(2));
        table("close");
    }

    function test_gas_of_auditors() external {
        address account = makeAddr("another");
        fund(account, WEIGHT);
        cold();
        vm.prank(account);
        stake.deposit(WEIGHT);
        table("deposit");
        cold();
        vm.prank(account);
        audit.enroll(WEIGHT);
        table("enroll");
        roll(1);
        deliver(solver, 0);
        roll(2);
        uint256 before = vm.snapshotState();
        cold();
        audit.draw(job, 0, 0);
        table("draw");
        uint256 i = 0;
        while (!isDrawn(0, auditors[i])) ++i;
        settleLater(0);
        cold();
        punish(stranger, 0, auditors[i]);
        table("punish");
        vm.revertToState(before);
        roll(256);
        cold();
        audit.draw(job, 0, 0);
        table("draw, missed");
        cold();
        vm.prank(account);
        audit.leave(WEIGHT);
        table("leave");
        pass(UNBONDING);
        cold();
        audit.finishLeaving(account);
        table("finishLeaving");
        cold();
        vm.prank(account);
        stake.withdraw(WEIGHT);
        table("withdraw stake");
    }

    function asksForAll() private pure returns (JobTerms memory t) {
        t = terms();
        t.auditRate = ALL;
    }
}
