// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IEmission} from "./interfaces/IEmission.sol";
import {IToken} from "./interfaces/IToken.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

contract Emission is IEmission {
    uint256 private constant SOLVER_PERCENT = 60;
    uint256 private constant AUDITOR_PERCENT = 25;
    uint256 private constant BUYER_PERCENT = 15;
    uint256 private constant ONE = 1e18;

    IToken public immutable token;
    address public immutable market;
    /// Time at which epoch 0 began: that of the deployment, so that no work comes before it.
    uint64 public immutable start;
    uint64 public immutable epochLength;
    /// Most tokens that epoch 0 can mint.
    uint256 public immutable firstBudget;
    /// Most tokens, in 1e-18 units, for each fee unit.
    uint256 public immutable ratio;

    /// @inheritdoc IEmission
    mapping(uint64 epoch => uint256) public fees;
    /// @inheritdoc IEmission
    mapping(uint64 epoch => mapping(address account => uint256)) public points;

    error ZeroAddress();
    error InvalidSchedule(string what);

    /// Ratio and budget are 128 bits wide, so that no sum of fees that can occur overflows.
    constructor(IToken token_, address market_, uint64 epochLength_, uint128 firstBudget_, uint128 ratio_) {
        if (address(token_) == address(0) || market_ == address(0)) revert ZeroAddress();
        if (epochLength_ == 0) revert InvalidSchedule("epochLength");
        (token, market, epochLength) = (token_, market_, epochLength_);
        (firstBudget, ratio) = (firstBudget_, ratio_);
        start = uint64(block.timestamp);
    }

    /// @inheritdoc IEmission
    function accrue(uint256 fee, address solver, address buyer, address[] calldata auditors) external {
        if (msg.sender != market) revert NotMarket(msg.sender);
        uint64 epoch = epochAt(uint64(block.timestamp));
        mapping(address account => uint256) storage earned = points[epoch];
        uint256 solverPoints = fee * SOLVER_PERCENT / 100;
        uint256 auditorPoints = auditors.length == 0 ? 0 : fee * AUDITOR_PERCENT / 100 / auditors.length;
        uint256 buyerPoints = fee * BUYER_PERCENT / 100;
        fees[epoch] += fee;
        earned[solver] += solverPoints;
        earned[buyer] += buyerPoints;
        for (uint256 i = 0; i < auditors.length; ++i) {
            earned[auditors[i]] += auditorPoints;
        }
        emit Accrued(epoch, solver, buyer, fee, solverPoints, auditorPoints, buyerPoints, auditors);
    }

    /// @inheritdoc IEmission
    function claim(uint64 epoch, address account) external returns (uint256 amount) {
        // INVARIANT: what a point is worth is fixed before the first is claimed.
        if (epochAt(uint64(block.timestamp)) <= epoch) revert EpochRunning(epoch, _end(epoch));
        amount = claimable(epoch, account);
        if (amount == 0) revert NothingToClaim(epoch, account);
        emit Claimed(epoch, account, points[epoch][account], amount);
        points[epoch][account] = 0;
        token.mint(account, amount);
    }

    /// @inheritdoc IEmission
    function epochAt(uint64 time) public view returns (uint64) {
        return (time - start) / epochLength;
    }

    /// @inheritdoc IEmission
    function budget(uint64 epoch) public view returns (uint256) {
        return firstBudget >> epoch;
    }

    /// @inheritdoc IEmission
    function claimable(uint64 epoch, address account) public view returns (uint256) {
        (uint256 earned, uint256 paid, uint256 most) = (points[epoch][account], fees[epoch], budget(epoch));
        if (Math.mulDiv(paid, ratio, ONE) <= most) return Math.mulDiv(earned, ratio, ONE);
        return Math.mulDiv(earned, most, paid);
    }

    function _end(uint64 epoch) private view returns (uint64) {
        return start + (epoch + 1) * epochLength;
    }
}
