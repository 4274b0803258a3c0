// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// The ERC-20 of a development chain: anybody mints. On a real chain an existing token takes its place.
contract Money is ERC20 {
    constructor() ERC20("Devnet Money", "MONEY") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}
