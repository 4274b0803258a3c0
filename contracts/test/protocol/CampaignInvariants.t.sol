// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Test} from "../Test.sol";
import {Backers} from "./support/Backers.sol";

contract CampaignInvariantsTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Backers private backers;

    function setUp() external {
        backers = new Backers();
        backers.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(backers);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(backers), actions());
    }

    /// What leads to shares comes more often, so that something happens.
    function actions() private pure returns (bytes4[] memory list) {
        bytes4[32] memory fixed_ = [
            Backers.wait.selector,
            Backers.wait.selector,
            Backers.createAnother.selector,
            Backers.pledge.selector,
            Backers.pledge.selector,
            Backers.pledge.selector,
            Backers.pledge.selector,
            Backers.refund.selector,
            Backers.launchOne.selector,
            Backers.launchOne.selector,
            Backers.claim.selector,
            Backers.claim.selector,
            Backers.commit.selector,
            Backers.commit.selector,
            Backers.endAll.selector,
            Backers.endAll.selector,
            Backers.forfeit.selector,
            Backers.askForRefund.selector,
            Backers.claimShares.selector,
            Backers.credit.selector,
            Backers.credit.selector,
            Backers.transferShares.selector,
            Backers.transferShares.selector,
            Backers.pay.selector,
            Backers.pay.selector,
            Backers.claimIncome.selector,
            Backers.finishOne.selector,
            Backers.claimReturn.selector,
            Backers.collect.selector,
            Backers.claimRewards.selector,
            Backers.claimForTheCampaign.selector,
            Backers.donate.selector
        ];
        list = new bytes4[](fixed_.length);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = fixed_[i];
        }
    }

    function invariant_campaigns_hold_what_they_owe() external {
        backers.checkAll();
    }

    /// Every stage has an exit that needs nobody's goodwill.
    function afterInvariant() external {
        backers.exitAll();
        backers.checkAll();
        backers.checkEmission();
        backers.checkOnlyDustIsLeft();
    }

    /// The invariants are worth something: backers like theirs do everything there is to do.
    function test_the_backers_do_everything() external {
        string[16] memory deeds = [
            "create",
            "pledge",
            "refund",
            "launch",
            "claim",
            "settle",
            "forfeit",
            "claim shares",
            "credit",
            "transfer",
            "pay income",
            "claim income",
            "finish",
            "claim what came back",
            "collect rewards",
            "claim rewards"
        ];
        uint256[16] memory times;
        for (uint256 round = 0; round < 6; ++round) {
            backers = new Backers();
            backers.setUp();
            for (uint256 i = 0; i < 500; ++i) {
                act(uint256(keccak256(abi.encode(round, i))));
            }
            backers.checkAll();
            backers.checkEmission();
            for (uint256 i = 0; i < deeds.length; ++i) {
                times[i] += backers.done(deeds[i]);
            }
            backers.exitAll();
            backers.checkOnlyDustIsLeft();
        }
        for (uint256 i = 0; i < deeds.length; ++i) {
            log(deeds[i], times[i]);
            assertTrue(times[i] > 0, deeds[i]);
        }
    }

    function act(uint256 random) private {
        bytes4[] memory list = actions();
        bytes4 action = list[random % list.length];
        (bool ok, bytes memory reason) =
            address(backers).call(abi.encodePacked(action, random >> 16, random >> 32, random >> 48, random >> 64));
        if (ok) return;
        assembly {
            revert(add(reason, 32), mload(reason))
        }
    }
}
