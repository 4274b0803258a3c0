// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../../devnet/Money.sol";
import {CampaignTerms, Contracts, ICampaign} from "../../../interfaces/ICampaign.sol";
import {ICrowdfund} from "../../../interfaces/ICrowdfund.sol";
import {IReferee} from "../../../interfaces/IReferee.sol";
import {Seal} from "../../../types/Ids.sol";
import {JobFixture} from "./JobFixture.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// A campaign for the job of JobFixture: half of the shares are the backers', two fifths the solvers', a tenth the
/// auditors'.
abstract contract CampaignFixture is JobFixture {
    uint256 internal constant SHARES = 1e24;
    uint128 internal constant GOAL = ESCROW; // 100,000
    uint64 internal constant STEPS = 10 * SEGMENTS;
    uint64 internal constant PLEDGE_DEADLINE = 50_000;
    uint64 internal constant GRACE = 7 days;
    uint64 internal constant DURATION = 500_000;

    address internal ada = makeAddr("ada");
    address internal ben = makeAddr("ben");
    address internal cleo = makeAddr("cleo");
    ICrowdfund internal crowdfund;
    ICampaign internal campaign;
    IERC20 internal shares;

    function setUp() public virtual override {
        super.setUp();
        begin();
    }

    /// Everything anew, for another payment token.
    function useMoney(Money money_) internal {
        deploy(money_, IReferee(makeAddr("referee")));
        begin();
    }

    /// Makes the Crowdfund, and its first campaign.
    function begin() internal {
        crowdfund = ICrowdfund(create("Crowdfund.sol", abi.encode(contracts())));
        use(newCampaign(campaignTerms()));
    }

    function contracts() internal view returns (Contracts memory) {
        return Contracts(money, rewards, market, stake, audit, emission);
    }

    function campaignTerms() internal pure returns (CampaignTerms memory t) {
        t.name = "Toy model";
        t.symbol = "TOY";
        t.job = terms();
        t.job.deadline = DURATION;
        (t.pledgeDeadline, t.steps) = (PLEDGE_DEADLINE, STEPS);
        (t.backers, t.solvers, t.auditors) = (5000, 4000, 1000);
    }

    /// Nothing is pledged and nothing paid.
    function volunteerTerms() internal pure returns (CampaignTerms memory t) {
        t = campaignTerms();
        t.job.escrow = 0;
        (t.backers, t.solvers, t.auditors) = (0, 8000, 2000);
    }

    function termsWithGoal(uint128 goal) internal pure returns (CampaignTerms memory t) {
        t = campaignTerms();
        t.job.escrow = goal;
    }

    function newCampaign(CampaignTerms memory t) internal returns (ICampaign) {
        vm.prank(buyer);
        return crowdfund.create(t, CID);
    }

    function use(ICampaign campaign_) internal {
        (campaign, shares) = (campaign_, IERC20(address(campaign_)));
        vm.label(address(campaign), "Campaign");
    }

    // ---------------------------------------------------------------- actions

    /// Gives `account` tokens that the campaign may take.
    function equip(address account, uint256 amount) internal {
        money.mint(account, amount);
        approve(account, address(campaign));
    }

    function pledge(address account, uint128 amount) internal returns (uint128) {
        equip(account, amount);
        vm.prank(account);
        return campaign.pledge(amount);
    }

    function fundAll() internal {
        pledge(ada, 60_000);
        pledge(ben, 30_000);
        pledge(cleo, 10_000);
    }

    function launch() internal {
        job = campaign.launch();
    }

    function launchFunded() internal {
        fundAll();
        launch();
    }

    function claimAllShares() internal {
        campaign.claimShares(ada);
        campaign.claimShares(ben);
        campaign.claimShares(cleo);
    }

    function payIncome(address account, uint128 amount) internal {
        equip(account, amount);
        vm.prank(account);
        campaign.payIncome(amount);
    }

    function claimIncome(address account) internal returns (uint256) {
        vm.prank(account);
        return campaign.claimIncome();
    }

    function transfer(address from, address to, uint256 amount) internal {
        vm.prank(from);
        shares.transfer(to, amount);
    }

    /// The solver does a segment, and it settles.
    function finishSegment(uint32 segment) internal {
        deliver(solver, segment);
        pass(WINDOW + 1);
        settle(segment);
    }

    /// A campaign whose job asks for as many auditors as it can.
    function useAudited() internal {
        CampaignTerms memory t = campaignTerms();
        t.job.auditRate = 40_000;
        use(newCampaign(t));
        launchFunded();
    }

    function enrollMany(uint256 count) internal returns (address[] memory auditors) {
        auditors = new address[](count);
        for (uint256 i = 0; i < count; ++i) {
            auditors[i] = vm.addr(500 + i);
            fund(auditors[i], 100);
            deposit(auditors[i], 100);
            vm.prank(auditors[i]);
            audit.enroll(100);
        }
        vm.roll(vm.getBlockNumber() + 1);
    }

    /// Attests to segment 0 with the trace of segment `trace`.
    function attest(address account, uint32 trace) internal {
        (Seal seal, Seal attestation) = (sealOf(0, solver), sealOf(trace, account));
        vm.prank(account);
        audit.attest(job, 0, 0, seal, attestation);
    }
}
