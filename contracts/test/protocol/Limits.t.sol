// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {JobFixture} from "./support/JobFixture.sol";

/// Sizes that a chain puts limits on; for gas, see GasTest.
contract MarketLimitsTest is JobFixture {
    function test_contracts_fit_into_a_chain() external view {
        assertLe(address(stake).code.length, 24_576, "Stake");
        assertLe(address(market).code.length, 24_576, "Market");
        assertLe(address(dispute).code.length, 24_576, "Dispute");
        assertLe(address(audit).code.length, 24_576, "Audit");
        assertLe(address(emission).code.length, 24_576, "Emission");
    }
}
