// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Test} from "../Test.sol";
import {Crowd} from "./support/Crowd.sol";

contract InvariantsTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Crowd private crowd;

    function setUp() external {
        crowd = new Crowd();
        crowd.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(crowd);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(crowd), actions());
    }

    /// Time, claims, commitments and attestations come more often, so that something happens.
    function actions() private pure returns (bytes4[] memory list) {
        bytes4[44] memory fixed_ = [
            Crowd.wait.selector,
            Crowd.wait.selector,
            Crowd.wait.selector,
            Crowd.wait.selector,
            Crowd.wait.selector,
            Crowd.wait.selector,
            Crowd.deposit.selector,
            Crowd.withdraw.selector,
            Crowd.collect.selector,
            Crowd.postAnother.selector,
            Crowd.postAnother.selector,
            Crowd.claim.selector,
            Crowd.claim.selector,
            Crowd.claim.selector,
            Crowd.claim.selector,
            Crowd.commit.selector,
            Crowd.commit.selector,
            Crowd.commit.selector,
            Crowd.commit.selector,
            Crowd.settle.selector,
            Crowd.settle.selector,
            Crowd.expire.selector,
            Crowd.void.selector,
            Crowd.refund.selector,
            Crowd.challenge.selector,
            Crowd.reveal.selector,
            Crowd.reveal.selector,
            Crowd.reveal.selector,
            Crowd.timeout.selector,
            Crowd.close.selector,
            Crowd.enroll.selector,
            Crowd.leave.selector,
            Crowd.finishLeaving.selector,
            Crowd.draw.selector,
            Crowd.draw.selector,
            Crowd.attest.selector,
            Crowd.attest.selector,
            Crowd.attest.selector,
            Crowd.attest.selector,
            Crowd.revealRoot.selector,
            Crowd.punish.selector,
            Crowd.punish.selector,
            Crowd.forfeit.selector,
            Crowd.sweep.selector
        ];
        list = new bytes4[](fixed_.length);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = fixed_[i];
        }
    }

    function invariant_the_contracts_hold_what_they_owe() external view {
        crowd.checkStakesHeld();
        crowd.checkEscrowHeld();
        crowd.checkLockedAndGames();
        crowd.checkPrices();
        crowd.checkFees();
    }

    /// Every state has an exit that needs nobody's goodwill.
    function afterInvariant() external {
        crowd.exitAll();
        crowd.checkNothingIsLeft();
        crowd.checkFees();
    }

    /// The invariants are worth something: a crowd like theirs does everything there is to do.
    function test_the_crowd_does_everything() external {
        string[25] memory deeds = [
            "claim",
            "claim again",
            "commit",
            "challenge",
            "reveal",
            "blunder",
            "settle",
            "expire",
            "void a claim",
            "void a commitment",
            "refund",
            "silence of the defender",
            "silence of the challenger",
            "close",
            "enroll",
            "leave",
            "finish leaving",
            "draw",
            "draw again",
            "attest right",
            "attest wrong",
            "reveal the root",
            "punish silence",
            "punish a wrong attestation",
            "forfeit"
        ];
        uint256[25] memory times;
        for (uint256 round = 0; round < 30; ++round) {
            crowd = new Crowd();
            crowd.setUp();
            for (uint256 i = 0; i < 300; ++i) {
                act(uint256(keccak256(abi.encode(round, i))));
            }
            for (uint256 i = 0; i < deeds.length; ++i) {
                times[i] += crowd.done(deeds[i]);
            }
        }
        for (uint256 i = 0; i < deeds.length; ++i) {
            log(deeds[i], times[i]);
        }
        for (uint256 i = 0; i < deeds.length; ++i) {
            assertTrue(times[i] > 0, deeds[i]);
        }
    }

    function act(uint256 random) private {
        bytes4[] memory list = actions();
        bytes4 action = list[random % list.length];
        (bool ok,) =
            address(crowd).call(abi.encodePacked(action, random >> 16, random >> 32, random >> 48, random >> 64));
        assertTrue(ok, "an action reverted");
    }
}
