// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAudit} from "./interfaces/IAudit.sol";
import {Backer, CampaignTerms, Contracts, ICampaign, Stage} from "./interfaces/ICampaign.sol";
import {IEmission} from "./interfaces/IEmission.sol";
import {IMarket, JobTerms, Segment, SegmentSpec, SegmentState} from "./interfaces/IMarket.sol";
import {IStake} from "./interfaces/IStake.sol";
import {Funds} from "./libraries/Funds.sol";
import {Income} from "./libraries/Income.sol";
import {Plan} from "./libraries/Plan.sol";
import {JobId} from "./types/Ids.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

contract Campaign is ICampaign, ERC20Permit {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;
    using Income for Income.Pool;

    /// All shares that can ever be.
    uint256 public constant SHARES = 1e24;
    /// Seconds after the pledge deadline in which a funded campaign may still be launched.
    uint256 public constant GRACE = 7 days;
    uint256 private constant WHOLE = 10_000;

    IERC20 public immutable token;
    IERC20 public immutable rewards;
    IMarket public immutable market;
    IStake public immutable stake;
    IAudit public immutable audit;
    IEmission public immutable emission;
    uint128 public immutable goal;

    /// @inheritdoc ICampaign
    bytes public manifest;
    /// @inheritdoc ICampaign
    JobId public job;
    /// @inheritdoc ICampaign
    uint64 public creditedSteps;
    /// @inheritdoc ICampaign
    uint128 public raised;
    /// @inheritdoc ICampaign
    uint256 public returned;
    /// @inheritdoc ICampaign
    mapping(uint32 segment => bool) public credited;
    CampaignTerms private _terms;
    mapping(address account => Backer) private _backers;
    Income.Pool private _income;
    Income.Pool private _rewards;
    /// Rewards that are in the pool and not paid out.
    uint256 private _rewardsHeld;

    modifier only(Stage needed) {
        Stage actual = stage();
        if (actual != needed) revert WrongStage(actual, needed);
        _;
    }

    /// Crowdfund has validated the terms.
    constructor(Contracts memory contracts, CampaignTerms memory terms_, bytes memory manifest_)
        ERC20(terms_.name, terms_.symbol)
        ERC20Permit(terms_.name)
    {
        (token, rewards, market) = (contracts.token, contracts.rewards, contracts.market);
        (stake, audit, emission) = (contracts.stake, contracts.audit, contracts.emission);
        goal = terms_.job.escrow;
        _terms = terms_;
        manifest = manifest_;
    }

    // ---------------------------------------------------------------- pledges

    /// @inheritdoc ICampaign
    function pledge(uint128 amount) external only(Stage.Pledging) returns (uint128 taken) {
        uint128 missing = goal - raised;
        taken = amount < missing ? amount : missing;
        if (taken == 0) revert NothingPledged();
        raised += taken;
        _backers[msg.sender].pledged += taken;
        emit Pledged(msg.sender, taken, raised);
        Funds.pull(token, msg.sender, taken);
    }

    /// @inheritdoc ICampaign
    function refund(address backer) external only(Stage.Failed) returns (uint256 amount) {
        amount = _backers[backer].pledged;
        if (amount == 0) revert NothingDue(backer);
        // INVARIANT: a pledge is refunded once, and never when it bought a job.
        delete _backers[backer];
        emit PledgeRefunded(backer, amount);
        token.safeTransfer(backer, amount);
    }

    /// @inheritdoc ICampaign
    function launch() external only(Stage.Funded) returns (JobId id) {
        JobTerms memory terms_ = _terms.job;
        terms_.deadline += uint64(block.timestamp);
        id = JobId.wrap(market.jobCount() + 1);
        // INVARIANT: when the escrow moves, nothing can be refunded or launched any more.
        job = id;
        emit Launched(id, goal, terms_.deadline);
        // INVARIANT: the backers' shares earn from the launch on, claimed or not.
        _mint(address(this), _part(_terms.backers));
        token.forceApprove(address(market), goal);
        JobId posted = market.post(terms_, manifest);
        if (JobId.unwrap(posted) != JobId.unwrap(id)) revert JobMismatch(id, posted);
    }

    // ---------------------------------------------------------------- shares

    /// @inheritdoc ICampaign
    function claimShares(address backer) external only(Stage.Launched) returns (uint256 shares) {
        Backer storage b = _backers[backer];
        if (b.sharesClaimed || b.pledged == 0) revert NothingDue(backer);
        b.sharesClaimed = true;
        shares = Math.mulDiv(_part(_terms.backers), b.pledged, goal);
        emit SharesClaimed(backer, shares);
        _transfer(address(this), backer, shares);
    }

    /// @inheritdoc ICampaign
    function credit(uint32 segment, SegmentSpec calldata spec) external {
        Segment memory s = market.segments(job, segment);
        if (s.state != SegmentState.Settled) revert NotSettled(segment);
        bytes32 leaf = Plan.leaf(spec);
        if (leaf != s.leaf) revert WrongLeaf(s.leaf, leaf);
        if (credited[segment]) revert AlreadyCredited(segment);
        credited[segment] = true;
        // INVARIANT: solvers and auditors get no more than their parts, whatever the plan holds.
        uint64 steps = uint64(Math.min(spec.steps, _terms.steps - creditedSteps));
        creditedSteps += steps;
        address[] memory auditors = audit.rightAttestors(job, segment, s.attempt);
        uint256 solverShares = _part(_terms.solvers) * steps / _terms.steps;
        uint256 auditorShares =
            auditors.length == 0 ? 0 : _part(_terms.auditors) * steps / _terms.steps / auditors.length;
        emit Credited(segment, s.solver, steps, solverShares, auditorShares, auditors);
        _mint(s.solver, solverShares);
        for (uint256 i = 0; i < auditors.length; ++i) {
            _mint(auditors[i], auditorShares);
        }
    }

    function _part(uint256 part) private pure returns (uint256) {
        return SHARES * part / WHOLE;
    }

    // ---------------------------------------------------------------- money that comes back

    /// @inheritdoc ICampaign
    function finish() external only(Stage.Launched) returns (uint256 amount) {
        // Where nothing is to be refunded, there may still be what others made the Market owe, and compensation.
        try market.refund(job) {} catch {}
        uint256 owed = market.owed(address(this));
        // slither-disable-next-line unused-return: a campaign has nothing locked.
        (uint256 free,) = stake.balances(address(this));
        amount = owed + free;
        if (amount == 0) revert NothingReturned();
        if (goal == 0) _income.add(amount.toUint128(), totalSupply());
        else returned += amount;
        emit Returned(amount);
        if (owed > 0) market.withdraw();
        if (free > 0) stake.withdraw(free);
    }

    /// @inheritdoc ICampaign
    function claimReturn(address backer) external returns (uint256 amount) {
        amount = returnOf(backer);
        if (amount == 0) revert NothingDue(backer);
        _backers[backer].returned += amount;
        emit ReturnClaimed(backer, amount);
        token.safeTransfer(backer, amount);
    }

    // ---------------------------------------------------------------- income

    /// @inheritdoc ICampaign
    function payIncome(uint128 amount) external {
        _income.add(amount, totalSupply());
        emit IncomePaid(msg.sender, amount);
        Funds.pull(token, msg.sender, amount);
    }

    /// @inheritdoc ICampaign
    function claimIncome() external returns (uint256 amount) {
        amount = _income.take(msg.sender, balanceOf(msg.sender));
        if (amount == 0) revert NothingDue(msg.sender);
        emit IncomeClaimed(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc ICampaign
    function collectRewards(uint64 epoch) external returns (uint256 amount) {
        // Anybody may have claimed them for the campaign already.
        // slither-disable-next-line unused-return: the balance counts, whoever claimed.
        if (emission.claimable(epoch, address(this)) > 0) emission.claim(epoch, address(this));
        amount = rewards.balanceOf(address(this)) - _rewardsHeld;
        // slither-disable-next-line incorrect-equality: a gift only adds to what is shared.
        if (amount == 0) revert NothingDue(address(this));
        _rewardsHeld += amount;
        _rewards.add(amount.toUint128(), totalSupply());
        emit RewardsCollected(amount);
    }

    /// @inheritdoc ICampaign
    function claimRewards() external returns (uint256 amount) {
        amount = _rewards.take(msg.sender, balanceOf(msg.sender));
        if (amount == 0) revert NothingDue(msg.sender);
        _rewardsHeld -= amount;
        emit RewardsClaimed(msg.sender, amount);
        rewards.safeTransfer(msg.sender, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        // INVARIANT: the only shares here are those kept for backers.
        if (to == address(this) && from != address(0)) revert ERC20InvalidReceiver(to);
        _bringUpToDate(_income, from, to, amount);
        _bringUpToDate(_rewards, from, to, amount);
        super._update(from, to, amount);
    }

    /// Before `amount` shares change hands.
    function _bringUpToDate(Income.Pool storage pool, address from, address to, uint256 amount) private {
        if (to != address(this)) pool.update(to, balanceOf(to));
        if (from == address(this)) pool.endow(to, amount);
        else if (from != address(0)) pool.update(from, balanceOf(from));
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc ICampaign
    function terms() external view returns (CampaignTerms memory) {
        return _terms;
    }

    /// @inheritdoc ICampaign
    function stage() public view returns (Stage) {
        if (JobId.unwrap(job) != 0) return Stage.Launched;
        bool funded = raised == goal;
        uint256 until = _terms.pledgeDeadline + (funded ? GRACE : 0);
        if (block.timestamp > until) return Stage.Failed;
        return funded ? Stage.Funded : Stage.Pledging;
    }

    /// @inheritdoc ICampaign
    function backers(address account) external view returns (Backer memory) {
        return _backers[account];
    }

    /// @inheritdoc ICampaign
    function returnOf(address backer) public view returns (uint256) {
        if (goal == 0) return 0;
        Backer storage b = _backers[backer];
        return Math.mulDiv(returned, b.pledged, goal) - b.returned;
    }

    /// @inheritdoc ICampaign
    function incomeOf(address holder) external view returns (uint256) {
        return _income.due(holder, balanceOf(holder));
    }

    /// @inheritdoc ICampaign
    function rewardsOf(address holder) external view returns (uint256) {
        return _rewards.due(holder, balanceOf(holder));
    }
}
