// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IMarket, JobTerms} from "../../interfaces/IMarket.sol";
import {IReferee} from "../../interfaces/IReferee.sol";
import {Funds} from "../../libraries/Funds.sol";
import {JobId} from "../../types/Ids.sol";
import {JobFixture} from "./support/JobFixture.sol";
import {FeeMoney} from "./support/Tokens.sol";

contract MarketPostTest is JobFixture {
    function test_post_takes_the_escrow_and_keeps_the_terms() external {
        uint256 purse = money.balanceOf(buyer);
        JobTerms memory t = terms();
        vm.expectEmit(address(market));
        emit IMarket.Posted(JobId.wrap(2), buyer, t, CID);
        JobId second = post(t);
        assertEq(JobId.unwrap(second), 2, "number");
        assertEq(market.jobCount(), 2, "count");
        assertEq(money.balanceOf(buyer), purse - ESCROW, "purse");
        assertEq(money.balanceOf(address(market)), 2 * ESCROW, "held");
        (address owner, JobTerms memory kept, uint256 reserved_, uint256 spent_, uint32 settled_) = market.jobs(second);
        assertEq(owner, buyer, "buyer");
        assertEq(keccak256(abi.encode(kept)), keccak256(abi.encode(terms())), "terms");
        assertEq(reserved_ + spent_ + settled_, 0, "nothing has happened");
    }

    function test_post_without_the_money_reverts() external {
        JobTerms memory t = terms();
        vm.prank(stranger);
        vm.expectRevert();
        market.post(t, CID);
    }

    function test_post_with_a_token_that_keeps_a_fee_reverts() external {
        deploy(new FeeMoney(), IReferee(makeAddr("referee")));
        fund(buyer, ESCROW);
        JobTerms memory t = terms();
        vm.prank(buyer);
        vm.expectRevert(abi.encodeWithSelector(Funds.WrongAmount.selector, ESCROW - ESCROW / 100, ESCROW));
        market.post(t, CID);
    }

    function test_the_largest_terms_are_valid() external {
        JobTerms memory t = terms();
        (t.segments, t.initialGroups) = (2 ** 31, 256);
        (t.lease, t.window, t.clock) = (30 days, uint32(UNBONDING) - 3 days, 1 days);
        (t.auditRate, t.auditShare) = (40_000, 40_000);
        t.deadline = uint64(vm.getBlockTimestamp() + 3650 days);
        vm.prank(buyer);
        market.post(t, new bytes(128));
    }

    function test_terms_out_of_range_are_refused() external {
        JobTerms memory t = terms();
        t.segments = 0;
        refused(t, "segments");
        t.segments = 2 ** 31 + 1;
        refused(t, "segments");
        t = terms();
        t.initialGroups = 0;
        refused(t, "initialGroups");
        t.initialGroups = 257;
        refused(t, "initialGroups");
        t = terms();
        t.lease = 0;
        refused(t, "lease");
        t.lease = 30 days + 1;
        refused(t, "lease");
        t = terms();
        t.window = 1;
        refused(t, "window");
        t.window = 30 days + 1;
        refused(t, "window");
        t = terms();
        t.clock = 1;
        refused(t, "clock");
        t.clock = 30 days + 1;
        refused(t, "clock");
        t = terms();
        (t.window, t.clock) = (uint32(UNBONDING) - 3 days + 1, 1 days);
        refused(t, "unbonding");
        t = terms();
        t.auditRate = 40_001;
        refused(t, "auditRate");
        t = terms();
        t.auditShare = 40_001;
        refused(t, "auditShare");
        t = terms();
        t.deadline = uint64(vm.getBlockTimestamp());
        refused(t, "deadline");
        t.deadline = uint64(vm.getBlockTimestamp() + 3650 days + 1);
        refused(t, "deadline");
    }

    function test_a_long_manifest_is_refused() external {
        JobTerms memory t = terms();
        vm.prank(buyer);
        vm.expectRevert(abi.encodeWithSelector(IMarket.InvalidTerms.selector, "manifest"));
        market.post(t, new bytes(129));
    }

    function test_no_address_is_zero() external {
        bytes4 why = bytes4(keccak256("ZeroAddress()"));
        address[5] memory all = [address(money), address(stake), address(dispute), address(audit), address(emission)];
        for (uint256 i = 0; i < all.length; ++i) {
            address[5] memory some = all;
            some[i] = address(0);
            vm.expectRevert(why);
            create("Market.sol", abi.encode(some, FEE_RATE));
        }
    }

    function test_fees_are_at_most_a_tenth() external {
        bytes memory arguments = abi.encode(money, stake, dispute, audit, emission);
        vm.expectRevert(abi.encodeWithSelector(bytes4(keccak256("FeeRateTooHigh(uint32,uint32)")), 1001, 1000));
        create("Market.sol", bytes.concat(arguments, abi.encode(1001)));
        create("Market.sol", bytes.concat(arguments, abi.encode(1000)));
    }

    function refused(JobTerms memory t, string memory what) private {
        vm.prank(buyer);
        vm.expectRevert(abi.encodeWithSelector(IMarket.InvalidTerms.selector, what));
        market.post(t, CID);
    }
}
