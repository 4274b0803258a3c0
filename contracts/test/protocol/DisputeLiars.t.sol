// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Phase, Reason} from "../../interfaces/IDispute.sol";
import {GameFixture, Players} from "./support/GameFixture.sol";
import {Fault, Shape, Toy} from "./support/Toy.sol";

/// Wrong executions: each is overturned by a challenger who knows the right one.
contract DisputeLiarsTest is GameFixture {
    function test_a_wrong_word_of_a_map() external {
        loses(Fault({step: 3, next: false, value: 6, word: 299, iteration: 0, mask: 1}), Reason.WrongWord);
    }

    function test_a_wrong_word_of_a_short_fold() external {
        loses(Fault({step: 4, next: false, value: 7, word: 2, iteration: 74, mask: 1 << 31}), Reason.WrongWord);
    }

    function test_a_wrong_word_in_the_last_step() external {
        loses(Fault({step: 5, next: false, value: 9, word: 0, iteration: 0, mask: 4}), Reason.WrongWord);
    }

    function test_a_wrong_word_that_reads_another_nest() external {
        loses(Fault({step: 1, next: false, value: 10, word: 3, iteration: 0, mask: 4}), Reason.WrongWord);
    }

    function test_a_next_state_that_the_program_does_not_give() external {
        loses(Fault({step: 2, next: true, value: 2, word: 0, iteration: 0, mask: 1}), Reason.BadBinding);
    }

    function test_a_next_state_in_a_group_of_one_tensor() external {
        loses(Fault({step: 5, next: true, value: 0, word: 256, iteration: 0, mask: 1}), Reason.BadBinding);
    }

    function test_a_word_after_the_end_of_a_tensor() external {
        loses(Fault({step: 2, next: false, value: 6, word: 300, iteration: 0, mask: 1}), Reason.BadPadding);
    }

    function test_a_tensor_after_the_end_of_a_group() external {
        loses(Fault({step: 4, next: true, value: Toy.STRAY, word: 0, iteration: 0, mask: 1}), Reason.BadPadding);
    }

    /// More than 4 * 4,096 iterations: partials on two levels.
    function test_a_wrong_word_of_a_long_fold() external {
        (steps, interval) = (1, 1);
        Fault memory fault = Fault({step: 1, next: false, value: 8, word: 0, iteration: 17_000, mask: 2});
        Players memory p = players(Shape({wide: 300, long: 20_000}), fault);
        begin(p);
        assertEq(playTo(p, Phase.Over), 11, "moves");
        assertOverturned(Reason.WrongWord);
    }

    /// More than 256 pages: children on two levels.
    function test_a_wrong_word_of_a_wide_tensor() external {
        (steps, interval) = (1, 1);
        Fault memory fault = Fault({step: 1, next: false, value: 6, word: 65_700, iteration: 0, mask: 2});
        Players memory p = players(Shape({wide: 65_800, long: 1}), fault);
        begin(p);
        assertEq(playTo(p, Phase.Over), 11, "moves");
        assertOverturned(Reason.WrongWord);
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: slow.fuzz.runs = 2000
    function test_any_wrong_word(uint32 step, uint32 value, uint32 word, uint32 iteration, uint32 mask) external {
        Fault memory fault;
        fault.step = committed(step);
        fault.value = uint32(bound(value, 6, 10));
        uint256 words = fault.value == 6 ? 300 : fault.value == 7 || fault.value == 10 ? 4 : 1;
        fault.word = uint32(bound(word, 0, words - 1));
        fault.iteration = uint32(bound(iteration, 0, Toy.foldLength(small(), fault.value) - 1));
        fault.mask = uint32(bound(mask, 1, type(uint32).max));
        loses(fault, Reason.WrongWord);
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: slow.fuzz.runs = 2000
    function test_any_wrong_next_state(uint32 step, uint32 tensor, uint32 word, uint32 mask) external {
        Fault memory fault;
        fault.next = true;
        fault.step = committed(step);
        fault.value = uint32(bound(tensor, 0, 3));
        fault.word = uint32(bound(word, 0, fault.value == 0 ? 299 : fault.value == 1 ? 3 : 0));
        fault.mask = uint32(bound(mask, 1, type(uint32).max));
        loses(fault, Reason.BadBinding);
    }

    /// A step whose state is a checkpoint: what is wrong there, is committed.
    function committed(uint32 any) private pure returns (uint32) {
        return any % 3 == 0 ? 2 : any % 3 == 1 ? 4 : 5;
    }

    function loses(Fault memory fault, Reason reason) private {
        Players memory p = began(fault);
        assertLe(playTo(p, Phase.Over), 19, "moves");
        assertOverturned(reason);
    }
}
