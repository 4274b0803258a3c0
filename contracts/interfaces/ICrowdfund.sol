// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {CampaignTerms, ICampaign} from "./ICampaign.sol";

/// @title Campaigns
/// @notice Makes them, and can do nothing with them.
interface ICrowdfund {
    event Created(ICampaign indexed campaign, address indexed creator, CampaignTerms terms, bytes manifest);

    error InvalidCampaign(string what);
    error AlreadyMade(ICampaign campaign);

    /// @notice Makes a campaign, at an address that follows from the caller, the terms and the manifest. `manifest` is
    /// the CID of the job's files.
    function create(CampaignTerms calldata terms, bytes calldata manifest) external returns (ICampaign);

    /// @notice How many campaigns there are.
    function count() external view returns (uint256);

    /// @notice Campaign number `index`, from 0.
    function campaigns(uint256 index) external view returns (ICampaign);

    /// @notice Whether `account` is a campaign that was made here.
    function isCampaign(address account) external view returns (bool);
}
