// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Referee} from "../Referee.sol";
import {IReferee} from "../interfaces/IReferee.sol";
import {Test} from "./Test.sol";

/// The vectors of tests/contracts/vectors.py, with the words that the Python reference gives.
contract RefereeTest is Test {
    Referee private referee;
    string private json;

    function setUp() external {
        referee = new Referee();
        json = vm.readFile("contracts/test/vectors/referee.json");
    }

    function test_words_are_those_of_the_reference() external {
        bytes[] memory calls = vm.parseJsonBytesArray(json, ".calls");
        uint256[] memory words = vm.parseJsonUintArray(json, ".words");
        string[] memory names = vm.parseJsonStringArray(json, ".names");
        assertTrue(calls.length > 40 && words.length == calls.length, "vectors");
        for (uint256 i = 0; i < calls.length; ++i) {
            uint256 left = gasleft();
            (bool ok, bytes memory result) = address(referee).staticcall(calls[i]);
            left -= gasleft();
            assertTrue(ok, names[i]);
            assertEq(abi.decode(result, (uint256)), words[i], names[i]);
            vm.snapshotValue("Referee", names[i], left);
        }
    }

    function test_a_nest_that_breaks_a_rule_is_refused() external view {
        bytes[] memory nests = vm.parseJsonBytesArray(json, ".broken");
        string[] memory rules = vm.parseJsonStringArray(json, ".rules");
        assertTrue(nests.length > 30, "vectors");
        for (uint256 i = 0; i < nests.length; ++i) {
            try referee.shapeOf(nests[i]) {
                assertTrue(false, rules[i]);
            } catch (bytes memory reason) {
                assertEq(bytes32(bytes4(reason)), bytes32(IReferee.InvalidNest.selector), rules[i]);
            }
        }
    }

    function test_a_header_that_breaks_a_rule_is_invalid() external view {
        bytes[] memory headers = vm.parseJsonBytesArray(json, ".headers");
        string[] memory rules = vm.parseJsonStringArray(json, ".headerRules");
        assertTrue(headers.length > 20, "vectors");
        for (uint256 i = 0; i < headers.length; ++i) {
            assertTrue(referee.isInvalidHeader(headers[i], type(uint32).max, ""), rules[i]);
        }
    }

    /// A header that claims many tensors and has none must not make the decoder run long.
    function test_a_header_of_false_counts_is_refused_at_once() external view {
        bytes memory header = abi.encodePacked("CTP1", uint16(1), uint16(2 ** 12), uint16(2 ** 12), uint16(0));
        uint256 left = gasleft();
        try referee.headerOf(header) {
            assertTrue(false, "accepted");
        } catch (bytes memory reason) {
            assertEq(bytes32(bytes4(reason)), bytes32(IReferee.InvalidHeader.selector), "selector");
        }
        assertLe(left - gasleft(), 20_000, "gas");
    }

    function test_no_bytes_make_the_decoders_fail_otherwise(bytes calldata data) external view {
        try referee.shapeOf(data) {}
        catch (bytes memory reason) {
            assertEq(bytes32(bytes4(reason)), bytes32(IReferee.InvalidNest.selector), "nest");
        }
        try referee.headerOf(data) {}
        catch (bytes memory reason) {
            assertEq(bytes32(bytes4(reason)), bytes32(IReferee.InvalidHeader.selector), "header");
        }
        referee.isInvalidHeader(data, 0, data);
    }
}
