// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../devnet/Money.sol";
import {IDispute, Reason} from "../../interfaces/IDispute.sol";
import {JobTerms, SegmentSpec, SegmentState} from "../../interfaces/IMarket.sol";
import {IReferee} from "../../interfaces/IReferee.sol";
import {IStake} from "../../interfaces/IStake.sol";
import {Funds} from "../../libraries/Funds.sol";
import {GameId, Seal} from "../../types/Ids.sol";
import {AuditFixture} from "./support/AuditFixture.sol";
import {BlacklistMoney, FeeMoney, SilentMoney} from "./support/Tokens.sol";

/// Payment tokens that are not as they should be. Tokens that keep a fee are refused; of the others, none can hold up the
/// end of a game, a settlement or another's money.
contract OddTokensTest is AuditFixture {
    BlacklistMoney private list;

    /// The actors of the fixture, with `odd` instead of their money.
    function useMoney(Money odd) private {
        deploy(odd, IReferee(makeAddr("referee")));
        address[4] memory actors = [buyer, solver, other, challenger];
        for (uint256 i = 0; i < actors.length; ++i) {
            fund(actors[i], PURSE);
            deposit(actors[i], PURSE / 2);
        }
        enroll(alice, WEIGHT);
        roll(1);
        JobTerms memory t = terms();
        t.auditRate = ALL;
        job = post(t);
    }

    function useBlacklist() private {
        list = new BlacklistMoney();
        useMoney(list);
    }

    function test_a_token_that_keeps_a_fee_is_refused() external {
        FeeMoney dear = new FeeMoney();
        deploy(dear, IReferee(makeAddr("referee")));
        fund(buyer, ESCROW);
        JobTerms memory t = terms();
        bytes memory why = abi.encodeWithSelector(Funds.WrongAmount.selector, ESCROW * 99 / 100, ESCROW);
        vm.prank(buyer);
        vm.expectRevert(why);
        market.post(t, CID);
        vm.prank(buyer);
        vm.expectRevert(why);
        stake.deposit(ESCROW);
    }

    function test_a_token_that_returns_nothing_works() external {
        useMoney(new SilentMoney());
        open(0);
        attest(alice, 0);
        settleLater(0);
        vm.prank(solver);
        market.withdraw();
        vm.prank(alice);
        market.withdraw();
        market.sweep();
        vm.warp(DEADLINE + 1);
        market.refund(job);
        vm.prank(buyer);
        market.withdraw();
        assertEq(money.balanceOf(address(market)), 0, "all is paid");
        vm.prank(solver);
        stake.withdraw(PURSE / 2);
        assertEq(money.balanceOf(solver), PURSE + pay(0), "solver");
        assertEq(money.balanceOf(alice), pot(0), "auditor");
    }

    /// Burning is counted; only the sweep needs the token's goodwill.
    function test_a_token_that_refuses_to_burn_holds_nothing_up() external {
        useBlacklist();
        list.blacklist(BURNED);
        open(0);
        challenge();
        pass(WINDOW + CLOCK);
        dispute.timeout(GameId.wrap(1));
        assertState(0, SegmentState.Open);
        deliver(challenger, 0);
        roll(2);
        audit.draw(job, 0, 1);
        settleLater(0);
        audit.punish(job, 0, 1, alice);
        deliver(other, 1);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 1, spec(1));
        uint256 burned = 2 * (STAKE - STAKE / 2) + penalty(0) - penalty(0) / 2;
        assertEq(stake.burned(), burned, "counted");
        assertEq(market.burned(), fee(0), "counted");
        vm.expectRevert(abi.encodeWithSelector(BlacklistMoney.Blacklisted.selector, BURNED));
        stake.sweep();
        vm.expectRevert(abi.encodeWithSelector(BlacklistMoney.Blacklisted.selector, BURNED));
        market.sweep();
    }

    /// Nobody is paid during the end of anything: who cannot receive harms only themselves.
    function test_a_token_that_refuses_a_winner_holds_nothing_up() external {
        useBlacklist();
        list.blacklist(challenger);
        list.blacklist(solver);
        list.blacklist(alice);
        list.blacklist(buyer);
        open(0);
        challenge();
        pass(WINDOW + CLOCK);
        dispute.timeout(GameId.wrap(1));
        assertEq(uint8(dispute.games(GameId.wrap(1)).reason), uint8(Reason.Timeout), "ended");
        assertEq(free(challenger), PURSE / 2 + STAKE / 2, "bounty");
        deliver(challenger, 0);
        roll(2);
        attest(alice, 0, sealOf(0, alice));
        settleLater(0);
        assertEq(market.owed(challenger), pay(0), "solver of the second attempt");
        assertEq(market.owed(alice), pot(0), "auditor");
        deliver(other, 1);
        pass(WINDOW + CLOCK + 1);
        market.forfeit(job, 1, spec(1));
        vm.warp(DEADLINE + 1);
        market.refund(job);
        market.sweep();
        stake.sweep();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(BlacklistMoney.Blacklisted.selector, challenger));
        market.withdraw();
        uint256 purse = money.balanceOf(other);
        vm.prank(other);
        stake.withdraw(PURSE / 2 - STAKE);
        assertEq(money.balanceOf(other), purse + PURSE / 2 - STAKE, "others leave");
    }

    function challenge() private {
        (SegmentSpec memory s, Seal seal) = (spec(0), at(0).seal);
        vm.prank(challenger);
        dispute.challenge(job, 0, s, seal);
    }
}
