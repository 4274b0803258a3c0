// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDispute, Phase, ProgramLeaf, Reason} from "../../interfaces/IDispute.sol";
import {SegmentSpec} from "../../interfaces/IMarket.sol";
import {IReferee} from "../../interfaces/IReferee.sol";
import {GameFixture, Players} from "./support/GameFixture.sol";
import {Toy} from "./support/Toy.sol";
import {Trees} from "./support/Trees.sol";

/// Programs that break a rule: whoever commits a result for one is overturned. And programs that do not.
contract DisputeProgramsTest is GameFixture {
    uint32 private constant HEADER_ONLY = type(uint32).max;

    bytes[] private leaves;

    function setUp() public override {
        super.setUp();
        leaves = Toy.programLeaves(small());
    }

    /// Exchanges one occurrence of `old` in a leaf.
    function edit(uint256 which, bytes memory old, bytes memory changed) private {
        bytes memory data = leaves[which];
        for (uint256 at = 0; at + old.length <= data.length; ++at) {
            if (keccak256(slice(data, at, old.length)) != keccak256(old)) continue;
            bytes memory tail = slice(data, at + old.length, data.length - at - old.length);
            leaves[which] = bytes.concat(slice(data, 0, at), changed, tail);
            return;
        }
        revert("nothing to edit");
    }

    function slice(bytes memory data, uint256 from, uint256 length) private pure returns (bytes memory part) {
        part = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            part[i] = data[from + i];
        }
    }

    function leaf(uint256 index) private view returns (ProgramLeaf memory) {
        return ProgramLeaf(leaves[index], Trees.proof(hashes(leaves), index));
    }

    /// A dispute of some commitment for the program in `leaves`, at the challenger's first turn.
    function attack() private returns (Players memory p) {
        p = players(small(), Toy.none());
        SegmentSpec memory s = spec(p);
        s.programRoot = programRoot(leaves);
        claimed(p, s);
        commit(p.claim[steps], Toy.stateRoots(p.claim, 0, steps, interval));
        challenge(challenger, s);
        play(p);
    }

    function proveInvalidNest(uint32 index, uint32 read, ProgramLeaf memory producer) private {
        attack();
        (ProgramLeaf memory header, ProgramLeaf memory nest, bytes32 here) = (leaf(0), leaf(2 + index), position());
        vm.prank(challenger);
        dispute.proveInvalidNest(game, here, header, index, nest, read, producer);
    }

    function proveInvalidHeader(uint32 tensor, ProgramLeaf memory producer) private {
        attack();
        (ProgramLeaf memory header, bytes32 here) = (leaf(0), position());
        vm.prank(challenger);
        dispute.proveInvalidHeader(game, here, header, tensor, producer);
    }

    // ---------------------------------------------------------------- nests that break a rule

    function test_a_malformed_nest() external {
        leaves[6] = bytes.concat(leaves[6], hex"00");
        proveInvalidNest(4, 0, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_nest_with_an_unknown_operation() external {
        edit(6, hex"26010200", hex"2e010200");
        proveInvalidNest(4, 0, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_nest_that_reads_itself() external {
        edit(6, hex"0000000007", hex"000000000a");
        proveInvalidNest(4, 10, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_nest_that_reads_a_value_that_is_not_there() external {
        edit(6, hex"0000000007", hex"000000ffff");
        proveInvalidNest(4, 0xffff, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_nest_that_reads_a_state_tensor_of_another_shape() external {
        edit(2, hex"000000000001000000000000012c", hex"000000000001000000000000012d");
        proveInvalidNest(0, 0, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_nest_that_reads_an_output_of_another_shape() external {
        edit(6, hex"00000000070100000000000000040000", hex"00000000070100000000000000050000");
        proveInvalidNest(4, 7, leaf(3));
        assertOverturned(Reason.InvalidProgram);
    }

    // ---------------------------------------------------------------- headers that break a rule

    function test_a_malformed_header() external {
        leaves[0] = bytes.concat(leaves[0], hex"00");
        proveInvalidHeader(HEADER_ONLY, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_header_without_magic() external {
        leaves[0] = "no header at all";
        proveInvalidHeader(HEADER_ONLY, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_header_whose_groups_do_not_add_up() external {
        edit(0, hex"00010003", hex"00010002");
        proveInvalidHeader(HEADER_ONLY, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_header_with_a_next_value_that_does_not_exist() external {
        edit(0, hex"0000000a", hex"0000000b");
        proveInvalidHeader(1, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_header_with_a_next_value_of_another_type() external {
        edit(0, hex"0201000000040000000a", hex"02010000000400000006");
        proveInvalidHeader(1, leaf(2));
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_header_with_a_next_state_tensor_of_another_type() external {
        edit(0, hex"0201000000040000000a", hex"02010000000400000000");
        proveInvalidHeader(1, noLeaf());
        assertOverturned(Reason.InvalidProgram);
    }

    function test_a_header_that_the_defender_cannot_show() external {
        leaves[0] = bytes.concat(leaves[0], hex"00");
        Players memory p = attack();
        p.seed = 1;
        playTo(p, Phase.RevealStep);
        (ProgramLeaf memory header, bytes32 here) = (leaf(0), position());
        vm.prank(solver);
        vm.expectRevert();
        dispute.revealStep(game, here, header, new bytes32[](8));
        vm.warp(at().since + CLOCK + 1);
        dispute.timeout(game);
        assertOverturned(Reason.Timeout);
    }

    // ---------------------------------------------------------------- at the nest's leaf

    function test_a_malformed_nest_that_is_picked() external {
        leaves[2] = bytes.concat(leaves[2], hex"00");
        Players memory p = attack();
        pickFirstNest(p, gasleft());
        assertOverturned(Reason.InvalidProgram);
    }

    /// With too little gas the Referee fails, but never says that the nest is malformed.
    function test_want_of_gas_proves_nothing() external {
        Players memory p = attack();
        playToPick(p);
        uint256 start = vm.snapshotState();
        for (uint256 gasLimit = 20_000; gasLimit < 200_000; gasLimit += 1000) {
            try this.pickShown(gasLimit) {
                assertEq(uint8(at().phase), uint8(Phase.RevealChildren), "the game goes on");
                assertTrue(gasLimit > 40_000, "some limits were too low");
                vm.revertToState(start);
            } catch {
                assertEq(uint8(at().phase), uint8(Phase.PickChild), "nothing happened");
            }
        }
    }

    /// A Referee that fails for any other reason than the nest's, here by taking all the gas there is, proves nothing.
    function test_a_failing_referee_proves_nothing() external {
        Players memory p = attack();
        playToPick(p);
        vm.etch(address(referee), hex"fe");
        vm.expectRevert();
        this.pickShown(gasleft() - 1_000_000);
        assertEq(uint8(at().phase), uint8(Phase.PickChild), "nothing happened");
    }

    bytes32[] private shown;

    function pickShown(uint256 gasLimit) external {
        (bytes32[] memory proof, ProgramLeaf memory nest) = (Trees.proof(shown, 0), leaf(2));
        bytes32 here = position();
        vm.prank(challenger);
        dispute.pickChild{gas: gasLimit}(game, here, 0, shown[0], proof, nest);
    }

    function playToPick(Players memory p) private {
        p.seed = 1;
        playTo(p, Phase.RevealStep);
        uint32[][] memory values = Toy.run(p.shape, p.data, p.claim[at().first], 0, Toy.none());
        shown = Trees.levels(nestRoots(values))[0];
        (ProgramLeaf memory header, bytes32 here) = (leaf(0), position());
        vm.prank(solver);
        dispute.revealStep(game, here, header, shown);
    }

    function pickFirstNest(Players memory p, uint256 gasLimit) private {
        playToPick(p);
        this.pickShown(gasLimit);
    }

    // ---------------------------------------------------------------- programs that break none

    /// forge-config: default.fuzz.runs = 64
    function test_no_nest_of_a_valid_program_is_invalid(uint32 index, uint32 read) external {
        index = uint32(bound(index, 0, 4));
        read = uint32(bound(read, 0, 12));
        bool produced = read >= 6 && read - 6 < index;
        proveInvalidNest(index, read, produced ? leaf(2 + read - 6) : noLeaf());
        assertUpheld(Reason.ValidProgram);
    }

    function test_no_header_of_a_valid_program_is_invalid() external {
        for (uint32 tensor = 0; tensor < 5; ++tensor) {
            uint256 start = vm.snapshotState();
            proveInvalidHeader(
                tensor < 4 ? tensor : HEADER_ONLY, tensor < 4 ? leaf(2 + Toy.next(tensor) - 6) : noLeaf()
            );
            assertUpheld(Reason.ValidProgram);
            vm.revertToState(start);
        }
    }

    function test_a_made_up_producer_proves_nothing() external {
        attack();
        ProgramLeaf memory wrong = leaf(2);
        refusesNest(leaf(0), 4, leaf(6), 7, wrong);
        refusesNest(leaf(0), 4, leaf(6), 7, noLeaf());
        refusesHeader(leaf(0), 1, wrong);
        refusesHeader(leaf(0), 1, noLeaf());
    }

    function test_a_made_up_nest_or_header_proves_nothing() external {
        attack();
        ProgramLeaf memory malformed = ProgramLeaf("nothing", leaf(6).proof);
        refusesNest(leaf(0), 4, malformed, 7, leaf(3));
        refusesNest(leaf(0), 4, leaf(5), 7, leaf(3));
        refusesHeader(malformed, HEADER_ONLY, noLeaf());
        // A leaf elsewhere than on the left edge, and an inner node, are no headers.
        refusesHeader(leaf(1), HEADER_ONLY, noLeaf());
        bytes32[] memory one = new bytes32[](2);
        refusesHeader(ProgramLeaf(leaves[0], one), HEADER_ONLY, noLeaf());
    }

    function refusesNest(
        ProgramLeaf memory header,
        uint32 index,
        ProgramLeaf memory nest,
        uint32 read,
        ProgramLeaf memory producer
    ) private {
        bytes32 here = position();
        vm.prank(challenger);
        vm.expectRevert(IDispute.BadProof.selector);
        dispute.proveInvalidNest(game, here, header, index, nest, read, producer);
    }

    function refusesHeader(ProgramLeaf memory header, uint32 tensor, ProgramLeaf memory producer) private {
        bytes32 here = position();
        vm.prank(challenger);
        vm.expectRevert(IDispute.BadProof.selector);
        dispute.proveInvalidHeader(game, here, header, tensor, producer);
    }

    function test_a_tensor_after_the_last_is_out_of_range() external {
        attack();
        ProgramLeaf memory header = leaf(0);
        bytes32 here = position();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IReferee.OutOfRange.selector, 4, 4));
        dispute.proveInvalidHeader(game, here, header, 4, noLeaf());
    }

    function test_a_nest_after_the_last_is_out_of_range() external {
        attack();
        ProgramLeaf memory header = leaf(0);
        bytes32 here = position();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IDispute.OutOfRange.selector, 5, 5));
        dispute.proveInvalidNest(game, here, header, 5, noLeaf(), 0, noLeaf());
    }
}
