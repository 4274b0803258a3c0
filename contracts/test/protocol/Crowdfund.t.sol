// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CampaignTerms, Contracts, ICampaign, Stage} from "../../interfaces/ICampaign.sol";
import {ICrowdfund} from "../../interfaces/ICrowdfund.sol";
import {IMarket} from "../../interfaces/IMarket.sol";
import {CampaignFixture} from "./support/CampaignFixture.sol";
import {Artifacts} from "./support/Deployment.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";

contract CrowdfundTest is CampaignFixture {
    function test_contracts_fit_into_a_chain() external view {
        assertLe(address(crowdfund).code.length, 24_576, "Crowdfund");
        assertLe(address(campaign).code.length, 24_576, "Campaign");
    }

    function test_a_campaign_is_what_was_asked_for() external view {
        IERC20Metadata token = IERC20Metadata(address(campaign));
        assertEq(keccak256(bytes(token.name())), keccak256("Toy model"), "name");
        assertEq(keccak256(bytes(token.symbol())), keccak256("TOY"), "symbol");
        assertEq(token.totalSupply(), 0, "supply");
        assertEq(keccak256(abi.encode(campaign.terms())), keccak256(abi.encode(campaignTerms())), "terms");
        assertEq(keccak256(campaign.manifest()), keccak256(CID), "manifest");
        assertEq(uint8(campaign.stage()), uint8(Stage.Pledging), "stage");
    }

    function test_campaigns_are_listed() external {
        ICampaign second = newCampaign(volunteerTerms());
        assertEq(crowdfund.count(), 2, "count");
        assertEq(address(crowdfund.campaigns(0)), address(campaign), "first");
        assertEq(address(crowdfund.campaigns(1)), address(second), "second");
        assertTrue(crowdfund.isCampaign(address(second)), "known");
        assertFalse(crowdfund.isCampaign(address(this)), "unknown");
    }

    /// A pledge that a reorganisation moves before the creation, or another's campaign to its place, finds nothing there.
    function test_the_address_follows_from_the_content() external {
        CampaignTerms memory t = volunteerTerms();
        bytes memory code =
            bytes.concat(Artifacts(address(vm)).getCode("Campaign.sol"), abi.encode(contracts(), t, CID));
        bytes32 salt = keccak256(abi.encode(buyer, t, CID));
        bytes32 hash = keccak256(abi.encodePacked(hex"ff", crowdfund, salt, keccak256(code)));
        address expected = address(uint160(uint256(hash)));
        vm.expectEmit(address(crowdfund));
        emit ICrowdfund.Created(ICampaign(expected), buyer, t, CID);
        assertEq(address(newCampaign(t)), expected, "address");
    }

    function test_another_creator_has_another_campaign() external {
        CampaignTerms memory t = campaignTerms();
        vm.startPrank(stranger);
        ICampaign other_ = crowdfund.create(t, CID);
        assertTrue(address(other_) != address(campaign), "addresses");
        vm.expectRevert(abi.encodeWithSelector(ICrowdfund.AlreadyMade.selector, other_));
        crowdfund.create(t, CID);
        vm.stopPrank();
    }

    function test_terms_that_cannot_work_are_refused() external {
        CampaignTerms memory t = campaignTerms();
        t.name = "";
        refused(t, "name");
        t.name = string(new bytes(65));
        refused(t, "name");
        t = campaignTerms();
        t.symbol = "";
        refused(t, "symbol");
        t.symbol = string(new bytes(17));
        refused(t, "symbol");
        t = campaignTerms();
        t.pledgeDeadline = uint64(vm.getBlockTimestamp());
        refused(t, "pledgeDeadline");
        t.pledgeDeadline += 366 days;
        refused(t, "pledgeDeadline");
        t = campaignTerms();
        t.steps = 0;
        refused(t, "steps");
        t = campaignTerms();
        t.auditors += 1;
        refused(t, "parts");
        t = volunteerTerms();
        (t.backers, t.solvers) = (1, 7999);
        refused(t, "backers");
    }

    function test_a_long_manifest_is_refused() external {
        CampaignTerms memory t = campaignTerms();
        vm.expectRevert(abi.encodeWithSelector(ICrowdfund.InvalidCampaign.selector, "manifest"));
        crowdfund.create(t, new bytes(129));
    }

    /// So nobody's pledge waits for a launch that the Market would refuse.
    function test_a_job_that_the_market_refuses_is_refused() external {
        CampaignTerms memory t = campaignTerms();
        t.job.lease = 0;
        vm.expectRevert(abi.encodeWithSelector(IMarket.InvalidTerms.selector, "lease"));
        crowdfund.create(t, CID);
        t = campaignTerms();
        t.job.deadline = 0;
        vm.expectRevert(abi.encodeWithSelector(IMarket.InvalidTerms.selector, "deadline"));
        crowdfund.create(t, CID);
        t.job.deadline = type(uint64).max;
        vm.expectRevert();
        crowdfund.create(t, CID);
    }

    function test_every_contract_is_needed() external {
        bytes memory good = abi.encode(contracts());
        for (uint256 i = 0; i < 6; ++i) {
            bytes memory bad = bytes.concat(good);
            assembly {
                mstore(add(add(bad, 32), mul(32, i)), 0)
            }
            vm.expectRevert(bytes4(keccak256("ZeroAddress()")));
            this.deployWith(bad);
        }
    }

    /// Pledges would be taken for rewards.
    function test_the_payment_token_is_not_the_rewards_token() external {
        Contracts memory c = contracts();
        c.rewards = IERC20(address(money));
        vm.expectRevert(bytes4(keccak256("SameToken()")));
        this.deployWith(abi.encode(c));
    }

    function deployWith(bytes memory arguments) external {
        create("Crowdfund.sol", arguments);
    }

    function refused(CampaignTerms memory t, string memory what) private {
        vm.expectRevert(abi.encodeWithSelector(ICrowdfund.InvalidCampaign.selector, what));
        crowdfund.create(t, CID);
    }
}
