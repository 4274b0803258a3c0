// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IToken} from "../../interfaces/IToken.sol";
import {Deployment} from "./support/Deployment.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

interface Signer {
    function sign(uint256 privateKey, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
}

contract TokenTest is Deployment {
    uint256 private constant CAP = 1000;
    address private minter = makeAddr("minter");
    address private stranger = makeAddr("stranger");
    IToken private token;

    function setUp() external {
        token = IToken(create("Token.sol", abi.encode(minter, CAP)));
    }

    function test_only_the_minter_mints(address caller) external {
        vm.assume(caller != minter);
        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(IToken.NotMinter.selector, caller));
        token.mint(caller, 1);
    }

    function test_never_more_than_the_cap(uint256 first, uint256 second) external {
        first = bound(first, 0, CAP);
        second = bound(second, CAP - first + 1, type(uint256).max - first);
        vm.startPrank(minter);
        token.mint(stranger, first);
        vm.expectRevert();
        token.mint(stranger, second);
        token.mint(stranger, CAP - first);
        vm.stopPrank();
        assertEq(token.totalSupply(), CAP, "supply");
    }

    function test_a_permit_allows_once() external {
        (uint256 key, address spender) = (uint256(keccak256("holder")), stranger);
        address holder = vm.addr(key);
        IERC20Permit permits = IERC20Permit(address(token));
        bytes32 kind = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 content = keccak256(abi.encode(kind, holder, spender, 7, 0, block.timestamp));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", permits.DOMAIN_SEPARATOR(), content));
        (uint8 v, bytes32 r, bytes32 s) = Signer(address(vm)).sign(key, digest);
        permits.permit(holder, spender, 7, block.timestamp, v, r, s);
        assertEq(token.allowance(holder, spender), 7, "allowance");
        vm.expectRevert();
        permits.permit(holder, spender, 7, block.timestamp, v, r, s);
    }

    function test_a_minter_is_needed() external {
        vm.expectRevert(bytes4(keccak256("ZeroAddress()")));
        this.deploy(address(0));
    }

    function deploy(address minter_) external {
        create("Token.sol", abi.encode(minter_, CAP));
    }
}
