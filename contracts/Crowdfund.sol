// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Campaign} from "./Campaign.sol";
import {CampaignTerms, Contracts, ICampaign} from "./interfaces/ICampaign.sol";
import {ICrowdfund} from "./interfaces/ICrowdfund.sol";
import {JobTerms} from "./interfaces/IMarket.sol";
import {Plan} from "./libraries/Plan.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

contract Crowdfund is ICrowdfund {
    using SafeCast for uint256;

    uint256 private constant MAX_NAME = 64;
    uint256 private constant MAX_SYMBOL = 16;
    uint256 private constant MAX_CID = 128;
    uint256 private constant MAX_PLEDGING = 365 days;

    Contracts private _contracts;
    /// @inheritdoc ICrowdfund
    ICampaign[] public campaigns;
    /// @inheritdoc ICrowdfund
    mapping(address account => bool) public isCampaign;

    mapping(bytes32 content => ICampaign) private _made;

    error ZeroAddress();
    error SameToken();

    constructor(Contracts memory contracts) {
        if (address(contracts.token) == address(0) || address(contracts.rewards) == address(0)) revert ZeroAddress();
        if (address(contracts.market) == address(0) || address(contracts.stake) == address(0)) revert ZeroAddress();
        if (address(contracts.audit) == address(0) || address(contracts.emission) == address(0)) revert ZeroAddress();
        // INVARIANT: what of the rewards' token arrives at a campaign is rewards, and no pledge.
        if (contracts.token == contracts.rewards) revert SameToken();
        _contracts = contracts;
    }

    /// @inheritdoc ICrowdfund
    function create(CampaignTerms calldata terms, bytes calldata manifest) external returns (ICampaign campaign) {
        _validate(terms);
        if (manifest.length > MAX_CID) revert InvalidCampaign("manifest");
        bytes32 content = keccak256(abi.encode(msg.sender, terms, manifest));
        if (address(_made[content]) != address(0)) revert AlreadyMade(_made[content]);
        campaign = new Campaign{salt: content}(_contracts, terms, manifest);
        _made[content] = campaign;
        campaigns.push(campaign);
        isCampaign[address(campaign)] = true;
        emit Created(campaign, msg.sender, terms, manifest);
    }

    /// @inheritdoc ICrowdfund
    function count() external view returns (uint256) {
        return campaigns.length;
    }

    function _validate(CampaignTerms calldata terms) private view {
        if (bytes(terms.name).length == 0 || bytes(terms.name).length > MAX_NAME) revert InvalidCampaign("name");
        if (bytes(terms.symbol).length == 0 || bytes(terms.symbol).length > MAX_SYMBOL) {
            revert InvalidCampaign("symbol");
        }
        if (terms.pledgeDeadline <= block.timestamp || terms.pledgeDeadline > block.timestamp + MAX_PLEDGING) {
            revert InvalidCampaign("pledgeDeadline");
        }
        if (terms.steps == 0) revert InvalidCampaign("steps");
        if (uint256(terms.backers) + terms.solvers + terms.auditors != 10_000) revert InvalidCampaign("parts");
        // INVARIANT: no shares are kept for backers that there cannot be.
        if (terms.job.escrow == 0 && terms.backers > 0) revert InvalidCampaign("backers");
        // INVARIANT: what the Market would refuse costs no backer the wait for a refund.
        JobTerms memory job = terms.job;
        job.deadline = (block.timestamp + job.deadline).toUint64();
        Plan.validate(job, _contracts.audit.unbonding());
    }
}
