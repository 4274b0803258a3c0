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

    /// Transactions and calldata included, for a segment of two groups, of a solver who has worked before.
    function test_an_undisputed_segment_costs_at_most_500_000_gas() external {
        segment(0);
        uint256 total = segment(1);
        log("claim, commit and settle", total);
        assertLe(total, 500_000, "claim, commit and settle");
    }

    function segment(uint32 i) private returns (uint256 total) {
        total = 3 * 21_000 + 16 * 3000;
        claim(solver, i);
        total += lastGas();
        log("claim", lastGas());
        commit(solver, i);
        total += lastGas();
        log("commit", lastGas());
        pass(WINDOW + 1);
        settle(i);
        log("settle", lastGas());
        total += lastGas();
    }

    function lastGas() private view returns (uint256 total) {
        (, total,,,) = vm.lastCallGas();
    }
}
