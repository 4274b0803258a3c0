// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Outcome, Round} from "../../../interfaces/IAudit.sol";
import {JobTerms} from "../../../interfaces/IMarket.sol";
import {Seal} from "../../../types/Ids.sol";
import {JobFixture} from "./JobFixture.sol";

/// JobFixture with three auditors of one weight, in a job that asks for as many auditors as can be asked for: all three
/// are drawn for every commitment but their own.
abstract contract AuditFixture is JobFixture {
    uint256 internal constant WEIGHT = 30_000;
    uint32 internal constant ALL = 40_000;

    address internal alice = makeAddr("alice");
    address internal bob = makeAddr("bob");
    address internal carol = makeAddr("carol");

    function setUp() public virtual override {
        super.setUp();
        vm.roll(1000);
        enroll(alice, WEIGHT);
        enroll(bob, WEIGHT);
        enroll(carol, WEIGHT);
        roll(1);
        JobTerms memory t = terms();
        t.auditRate = ALL;
        job = post(t);
    }

    /// Gives `account` just so much stake and enrols it.
    function enroll(address account, uint256 amount) internal {
        fund(account, amount);
        deposit(account, amount);
        vm.prank(account);
        audit.enroll(amount);
    }

    function leave(address account, uint256 amount) internal {
        vm.prank(account);
        audit.leave(amount);
    }

    function roll(uint256 blocks) internal {
        vm.roll(vm.getBlockNumber() + blocks);
    }

    /// The solver commits, and the hash of the draw becomes known.
    function open(uint32 segment) internal {
        deliver(solver, segment);
        roll(2);
    }

    function round(uint32 segment) internal view returns (Round memory) {
        return audit.rounds(job, segment, at(segment).attempt);
    }

    /// Lets the block of the draw have the hash of `label`.
    function setSeed(uint32 segment, uint256 label) internal {
        vm.setBlockhash(round(segment).drawBlock, keccak256(abi.encode(label)));
    }

    function isDrawn(uint32 segment, address account) internal view returns (bool) {
        return audit.isDrawn(job, segment, at(segment).attempt, account);
    }

    function attest(address account, uint32 segment) internal {
        attest(account, segment, sealOf(segment, account));
    }

    function attest(address account, uint32 segment, Seal attestation) internal {
        (uint32 attempt, Seal seal) = (at(segment).attempt, at(segment).seal);
        vm.prank(account);
        audit.attest(job, segment, attempt, seal, attestation);
    }

    function refusesAttest(address account, uint32 segment, bytes memory why) internal {
        refusesAttest(account, segment, at(segment).attempt, at(segment).seal, sealOf(segment, account), why);
    }

    function refusesAttest(
        address account,
        uint32 segment,
        uint32 attempt,
        Seal seal,
        Seal attestation,
        bytes memory why
    ) internal {
        vm.prank(account);
        vm.expectRevert(why);
        audit.attest(job, segment, attempt, seal, attestation);
    }

    function punish(address reporter, uint32 segment, address auditor) internal {
        vm.prank(reporter);
        audit.punish(job, segment, 0, auditor);
    }

    function settleLater(uint32 segment) internal {
        pass(WINDOW + 1);
        settle(segment);
    }

    function outcome(uint32 segment, uint32 attempt) internal view returns (Outcome) {
        return audit.rounds(job, segment, attempt).outcome;
    }

    function assertOutcome(uint32 segment, uint32 attempt, Outcome expected) internal view {
        assertEq(uint8(outcome(segment, attempt)), uint8(expected), "outcome");
    }

    /// What silence costs in these jobs: a tenth of the fee.
    function penalty(uint32 segment) internal pure returns (uint256) {
        return fee(segment) / 10;
    }
}
