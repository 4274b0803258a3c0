// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {JobFixture} from "./support/JobFixture.sol";

/// Sizes and gas that a chain puts limits on.
contract MarketLimitsTest is JobFixture {
    function test_contracts_fit_into_a_chain() external view {
        assertLe(address(stake).code.length, 24_576, "Stake");
        assertLe(address(market).code.length, 24_576, "Market");
        assertLe(address(dispute).code.length, 24_576, "Dispute");
    }

    /// Transactions and calldata included, for a segment of two groups.
    function test_an_undisputed_segment_costs_at_most_500_000_gas() external {
        uint256 total = 3 * 21_000 + 16 * 3000;
        claim(solver, 0);
        total += lastGas();
        commit(solver, 0);
        total += lastGas();
        pass(WINDOW + 1);
        settle(0);
        total += lastGas();
        log("claim, commit and settle", total);
        assertLe(total, 500_000, "claim, commit and settle");
    }

    function lastGas() private view returns (uint256 total) {
        (, total,,,) = vm.lastCallGas();
    }
}
