// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {JobId} from "../types/Ids.sol";
import {IAudit} from "./IAudit.sol";
import {IEmission} from "./IEmission.sol";
import {IMarket, JobTerms, SegmentSpec} from "./IMarket.sol";
import {IStake} from "./IStake.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice What a campaign is for, and who will own the model.
/// @param name of the model, and of the ERC-20 of its shares
/// @param job the job to be posted: its escrow is the campaign's goal, its deadline is in seconds after the launch. A
/// goal of 0 is a volunteers' job.
/// @param pledgeDeadline time up to which pledges are taken
/// @param steps of all the plan's segments together
/// @param backers part of all shares, in 1/10,000, of those who pledged; 0 if the goal is 0
/// @param solvers part of those whose segments settle, by steps
/// @param auditors part of those who attested them right, by steps
struct CampaignTerms {
    string name;
    string symbol;
    JobTerms job;
    uint64 pledgeDeadline;
    uint64 steps;
    uint16 backers;
    uint16 solvers;
    uint16 auditors;
}

/// @notice The contracts that a campaign deals with.
/// @param token what is pledged and paid
/// @param rewards the protocol's own token
struct Contracts {
    IERC20 token;
    IERC20 rewards;
    IMarket market;
    IStake stake;
    IAudit audit;
    IEmission emission;
}

/// @notice What an account has put in.
/// @param sharesClaimed whether it has its shares
/// @param returned how much of what came back it has taken
struct Backer {
    uint128 pledged;
    bool sharesClaimed;
    uint256 returned;
}

/// @notice Pledging → Funded → Launched, or Failed: when the deadline is over without the goal, or the time to launch.
enum Stage {
    Pledging,
    Funded,
    Launched,
    Failed
}

/// @title A model that a crowd owns
/// @notice Collects pledges, buys the training, and is the ERC-20 (with permit) of the model's shares. Nobody can take
/// the money: it becomes the escrow of the job or goes back.
/// Warning: the shares' income is what was paid in while they existed, so solvers and auditors should `credit` their
/// segments as soon as these settle.
interface ICampaign {
    event Pledged(address indexed backer, uint256 amount, uint256 raised);
    event PledgeRefunded(address indexed backer, uint256 amount);
    event Launched(JobId indexed job, uint256 escrow, uint64 deadline);
    event SharesClaimed(address indexed backer, uint256 shares);
    /// @notice Shares of a settled segment; each of `auditors` got `auditorShares`.
    event Credited(
        uint32 indexed segment,
        address indexed solver,
        uint64 steps,
        uint256 solverShares,
        uint256 auditorShares,
        address[] auditors
    );
    event Returned(uint256 amount);
    event ReturnClaimed(address indexed backer, uint256 amount);
    event IncomePaid(address indexed payer, uint256 amount);
    event IncomeClaimed(address indexed holder, uint256 amount);
    event RewardsCollected(uint256 amount);
    event RewardsClaimed(address indexed holder, uint256 amount);

    error WrongStage(Stage actual, Stage needed);
    error GoalReached();
    error NothingPledged();
    error NothingDue(address account);
    error NothingReturned();
    error NotSettled(uint32 segment);
    error WrongLeaf(bytes32 expected, bytes32 actual);
    error AlreadyCredited(uint32 segment);
    error JobMismatch(JobId expected, JobId actual);

    // ---- pledges

    /// @notice Takes up to `amount` from the caller: no more than what is missing to the goal. Returns what was taken.
    function pledge(uint128 amount) external returns (uint128 taken);

    /// @notice When the campaign has failed, pays a backer's pledge back to them. Anybody.
    function refund(address backer) external returns (uint256 amount);

    /// @notice When the goal is reached, posts the job. Anybody, until `GRACE` after the pledge deadline.
    function launch() external returns (JobId);

    // ---- shares

    /// @notice Gives a backer their shares, with the income that these have earned since the launch. Anybody.
    function claimShares(address backer) external returns (uint256 shares);

    /// @notice Mints the shares of a settled segment to its solver and to those who attested it right. Anybody.
    function credit(uint32 segment, SegmentSpec calldata spec) external;

    // ---- money that comes back

    /// @notice Takes in what the Market owes and what Stake holds for the campaign: escrow that was not spent, and
    /// compensation. It is the backers', by their pledges; in a volunteers' job it is income. Anybody, any time.
    function finish() external returns (uint256 amount);

    /// @notice Pays a backer their part of what came back. Anybody.
    function claimReturn(address backer) external returns (uint256 amount);

    // ---- income

    /// @notice Takes `amount` from the caller, such as a licence fee, and shares it among all shares that there are.
    function payIncome(uint128 amount) external;

    /// @notice Pays the caller the income of their shares.
    function claimIncome() external returns (uint256 amount);

    /// @notice Claims the campaign's rewards as a buyer in this epoch, if any are left, and shares them and whatever
    /// else of the rewards' token arrived here among all shares. Anybody.
    function collectRewards(uint64 epoch) external returns (uint256 amount);

    /// @notice Pays the caller the rewards of their shares.
    function claimRewards() external returns (uint256 amount);

    // ---- views

    function terms() external view returns (CampaignTerms memory);
    /// @notice CID of the job's files.
    function manifest() external view returns (bytes memory);
    function stage() external view returns (Stage);
    function raised() external view returns (uint128);
    /// @notice 0 before the launch.
    function job() external view returns (JobId);
    function backers(address account) external view returns (Backer memory);
    function credited(uint32 segment) external view returns (bool);
    /// @notice Steps whose shares are minted.
    function creditedSteps() external view returns (uint64);
    /// @notice Token units that ever came back.
    function returned() external view returns (uint256);
    /// @notice What `claimReturn` would pay.
    function returnOf(address backer) external view returns (uint256);
    /// @notice What `claimIncome` would pay `holder`, who has claimed all their shares.
    function incomeOf(address holder) external view returns (uint256);
    /// @notice What `claimRewards` would pay `holder`, who has claimed all their shares.
    function rewardsOf(address holder) external view returns (uint256);
}
