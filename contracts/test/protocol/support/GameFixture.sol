// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../../devnet/Money.sol";
import {Game, Phase, ProgramLeaf, Reason, Tree, ValueProof} from "../../../interfaces/IDispute.sol";
import {GroupProof, JobTerms, Segment, SegmentSpec, SegmentState, Source} from "../../../interfaces/IMarket.sol";
import {IReferee, Page} from "../../../interfaces/IReferee.sol";
import {DataRoot, GameId, JobId, PlanRoot, ProgramRoot, Seal, StateRoot} from "../../../types/Ids.sol";
import {Deployment} from "./Deployment.sol";
import {Fault, Shape, Toy} from "./Toy.sol";
import {Trees} from "./Trees.sol";

/// What the players of a dispute know: both executions, and the tree in which they stand.
/// @param seed of a challenger who picks at random; 0: an honest one
struct Players {
    Shape shape;
    Fault fault;
    uint256 seed;
    uint32[][] data;
    uint32[][][] truth;
    uint32[][][] claim;
    uint32[][] right;
    uint32[][] shown;
    bytes32[] list;
    bytes32[] rightList;
    bytes32[][] levels;
    bytes32[] rightLeaves;
    bytes partials;
}

/// A job of one segment that runs the toy program, and both players of a dispute of it: the defender shows what the
/// faulty execution gives, the challenger picks what differs from the right one.
abstract contract GameFixture is Deployment {
    uint128 internal constant STAKE = 101;
    uint32 internal constant CLOCK = 300;
    uint32 internal constant WINDOW = 500;
    uint256 internal constant PURSE = 1_000_000;
    uint32 internal constant INITIAL = type(uint32).max;

    address internal buyer = makeAddr("buyer");
    address internal solver = makeAddr("solver");
    address internal challenger = makeAddr("challenger");
    address internal stranger = makeAddr("stranger");
    IReferee internal referee;
    JobId internal job;
    GameId internal game;
    uint32 internal steps = 5;
    uint32 internal interval = 2;

    function setUp() public virtual {
        vm.warp(1000);
        referee = IReferee(create("Referee.sol", ""));
        deploy(new Money(), referee);
        address[4] memory actors = [buyer, solver, challenger, stranger];
        for (uint256 i = 0; i < actors.length; ++i) {
            fund(actors[i], PURSE);
            deposit(actors[i], PURSE / 2);
        }
    }

    // ---------------------------------------------------------------- the job

    function small() internal pure returns (Shape memory) {
        return Shape({wide: 300, long: 40});
    }

    /// Both executions: the right one, and the one with `fault`.
    function players(Shape memory shape, Fault memory fault) internal view returns (Players memory p) {
        (p.shape, p.fault) = (shape, fault);
        p.data = Toy.data(shape);
        p.truth = Toy.execute(shape, p.data, Toy.initial(shape), steps, Toy.none());
        p.claim = fault.mask == 0 ? p.truth : Toy.execute(shape, p.data, p.truth[0], steps, fault);
    }

    function spec(Players memory p) internal view returns (SegmentSpec memory s) {
        s.programRoot = programRoot(Toy.programLeaves(p.shape));
        s.dataRoot = DataRoot.wrap(Trees.root(Toy.tensorRoots(p.data, 0, 2)));
        (s.steps, s.interval, s.price) = (steps, interval, 10);
        s.inputs = new Source[](2);
        (s.inputs[0], s.inputs[1]) = (Source(INITIAL, 0), Source(INITIAL, 1));
    }

    function programRoot(bytes[] memory leaves) internal pure returns (ProgramRoot) {
        return ProgramRoot.wrap(Trees.root(hashes(leaves)));
    }

    function hashes(bytes[] memory leaves) internal pure returns (bytes32[] memory list) {
        list = new bytes32[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            list[i] = Trees.leaf(leaves[i]);
        }
    }

    /// Posts a job of this one segment and has the solver claim it.
    function claimed(Players memory p, SegmentSpec memory s) internal {
        JobTerms memory terms;
        terms.planRoot = PlanRoot.wrap(Trees.leaf(abi.encode(s)));
        terms.initialRoot = StateRoot.wrap(Toy.stateRoot(p.truth[0]));
        (terms.initialGroups, terms.segments, terms.escrow, terms.stake) = (2, 1, 10, STAKE);
        (terms.lease, terms.window, terms.clock, terms.deadline) = (1000, WINDOW, CLOCK, 1_000_000);
        vm.prank(buyer);
        job = market.post(terms, "");
        bytes32[] memory groups = Toy.groups(p.truth[0]);
        GroupProof[] memory inputs = new GroupProof[](2);
        for (uint256 i = 0; i < 2; ++i) {
            inputs[i] = GroupProof(groups[i], Trees.proof(groups, i));
        }
        vm.prank(solver);
        market.claim(job, 0, s, new bytes32[](0), inputs);
    }

    function commit(uint32[][] memory output, bytes32[] memory checkpoints) internal {
        Seal seal = Seal.wrap(sha256(abi.encodePacked(Trees.root(checkpoints), solver)));
        bytes32[] memory groups = Toy.groups(output);
        StateRoot inputs = market.segments(job, 0).inputRoot;
        vm.prank(solver);
        market.commit(job, 0, inputs, groups, seal, "");
    }

    /// A game that begins at once: attestations are in.
    function challenge(address account, SegmentSpec memory s) internal {
        Segment memory c = market.segments(job, 0);
        uint64 begin_ = c.until - WINDOW / 2 + 1;
        if (vm.getBlockTimestamp() < begin_) vm.warp(begin_);
        vm.prank(account);
        game = dispute.challenge(job, 0, s, c.seal);
    }

    /// A dispute of the commitment that the faulty execution gives.
    function begin(Players memory p) internal {
        SegmentSpec memory s = spec(p);
        claimed(p, s);
        commit(p.claim[steps], Toy.stateRoots(p.claim, 0, steps, interval));
        challenge(challenger, s);
    }

    function began(Fault memory fault) internal returns (Players memory p) {
        p = players(small(), fault);
        begin(p);
    }

    // ---------------------------------------------------------------- playing

    function at() internal view returns (Game memory) {
        return dispute.games(game);
    }

    function position() internal view returns (bytes32) {
        return at().position;
    }

    function isDefenders(Phase phase) internal pure returns (bool) {
        return phase == Phase.RevealTrace || phase == Phase.RevealStates || phase == Phase.RevealStep
            || phase == Phase.RevealChildren || phase == Phase.RevealPage || phase == Phase.RevealPartials;
    }

    /// Plays until `phase` is reached; with Phase.Over, to the end.
    function playTo(Players memory p, Phase phase) internal returns (uint256 moves) {
        while (at().phase != phase) {
            require(at().phase != Phase.Over, "the game ended before");
            play(p);
            ++moves;
        }
    }

    /// Makes the move that is awaited.
    function play(Players memory p) internal {
        Game memory g = at();
        if (p.seed != 0) p.seed = uint256(keccak256(abi.encode(p.seed)));
        if (g.phase == Phase.RevealTrace) _revealTrace(p, g);
        else if (g.phase == Phase.PickCheckpoint) _pickCheckpoint(p, g);
        else if (g.phase == Phase.RevealStates) _revealStates(p, g);
        else if (g.phase == Phase.PickStep) _pickStep(p, g);
        else if (g.phase == Phase.RevealStep) _revealStep(p, g);
        else if (g.phase == Phase.RevealChildren) _revealChildren(p, g);
        else if (g.phase == Phase.PickChild) _pickChild(p, g);
        else if (g.phase == Phase.RevealPage) _revealPage(p, g);
        else if (g.phase == Phase.PickWord) _pickWord(p, g);
        else if (g.phase == Phase.RevealPartials) _revealPartials(p, g);
        else if (g.phase == Phase.PickPartial) _pickPartial(p, g);
        else if (g.phase == Phase.Prove) _prove(p, g);
        else _proveNext(p, g);
    }

    /// The honest pick, or any of `count` where the challenger plays at random.
    function _choose(Players memory p, uint256 honest, uint256 count) private pure returns (uint32) {
        return uint32(p.seed == 0 ? honest : p.seed % count);
    }

    function firstDifference(bytes32[] memory a, bytes32[] memory b) internal pure returns (uint256 i) {
        while (i < a.length && a[i] == b[i]) ++i;
    }

    // ---------------------------------------------------------------- trace and interval

    function _revealTrace(Players memory p, Game memory g) private {
        p.list = Toy.stateRoots(p.claim, 0, steps, interval);
        p.rightList = Toy.stateRoots(p.truth, 0, steps, interval);
        vm.prank(solver);
        dispute.revealTrace(game, g.position, p.list);
    }

    function _pickCheckpoint(Players memory p, Game memory g) private {
        uint32 i = _choose(p, firstDifference(p.list, p.rightList) - 1, p.list.length - 1) + 1;
        bytes32[] memory before = Trees.proof(p.list, i - 1);
        bytes32[] memory afterwards = Trees.proof(p.list, i);
        vm.prank(challenger);
        dispute.pickCheckpoint(game, g.position, i, p.list[i - 1], before, p.list[i], afterwards);
    }

    function _revealStates(Players memory p, Game memory g) private {
        p.list = Toy.stateRoots(p.claim, g.first, g.first + g.length, 1);
        p.rightList = Toy.stateRoots(p.truth, g.first, g.first + g.length, 1);
        vm.prank(solver);
        dispute.revealStates(game, g.position, p.list);
    }

    function _pickStep(Players memory p, Game memory g) private {
        uint32 i = _choose(p, firstDifference(p.list, p.rightList) - 1, p.list.length - 1) + 1;
        bytes32[] memory before = Trees.proof(p.list, i - 1);
        bytes32[] memory afterwards = Trees.proof(p.list, i);
        vm.prank(challenger);
        dispute.pickStep(game, g.position, i, p.list[i - 1], before, p.list[i], afterwards);
    }

    // ---------------------------------------------------------------- step and tensor

    function programLeaf(Shape memory shape, uint256 index) internal pure returns (ProgramLeaf memory) {
        bytes[] memory leaves = Toy.programLeaves(shape);
        return ProgramLeaf(leaves[index], Trees.proof(hashes(leaves), index));
    }

    function noLeaf() internal pure returns (ProgramLeaf memory) {}

    function _enter(Players memory p, bytes32[] memory shown, bytes32[] memory right) private pure {
        p.levels = Trees.levels(shown);
        p.rightLeaves = Trees.levels(right)[0];
    }

    function nestRoots(uint32[][] memory values) internal pure returns (bytes32[] memory) {
        return Toy.tensorRoots(values, Toy.FIRST_NEST, values.length);
    }

    function _revealStep(Players memory p, Game memory g) private {
        p.right = Toy.run(p.shape, p.data, p.truth[g.first], 0, Toy.none());
        p.shown = Toy.run(p.shape, p.data, p.claim[g.first], g.first + 1, p.fault);
        _enter(p, nestRoots(p.shown), nestRoots(p.right));
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        vm.prank(solver);
        dispute.revealStep(game, g.position, header, children(p, g, true));
    }

    /// The nodes that stand up to 8 levels below the one where the players are, as the defender shows them.
    function children(Players memory p, Game memory g, bool atRoot) internal pure returns (bytes32[] memory shown) {
        uint256 height = atRoot ? p.levels.length - 1 : g.height;
        uint256 depth = height < 8 ? height : 8;
        shown = new bytes32[](1 << depth);
        for (uint256 i = 0; i < shown.length; ++i) {
            shown[i] = p.levels[height - depth][(atRoot ? 0 : g.index) * shown.length + i];
        }
    }

    function _revealChildren(Players memory p, Game memory g) private {
        vm.prank(solver);
        dispute.revealChildren(game, g.position, children(p, g, false));
    }

    function _pickChild(Players memory p, Game memory g) private {
        uint256 wrong = firstDifference(p.levels[0], p.rightLeaves);
        bool atRoot = g.tree == Tree.Nests && g.node == g.nestsRoot;
        if (atRoot && (p.seed == 0 ? wrong == p.levels[0].length : p.seed % 4 == 0)) return disputeNext(p, g);
        uint256 depth = g.height < 8 ? g.height : 8;
        uint32 child = _choose(p, (wrong >> g.height - depth) - (uint256(g.index) << depth), 1 << depth);
        bytes32[] memory shown = children(p, g, false);
        uint32 index = uint32(g.index * shown.length + child);
        ProgramLeaf memory leaf;
        if (g.height == depth && index < g.count) {
            if (g.tree == Tree.Nests) leaf = programLeaf(p.shape, 2 + index);
            if (g.tree == Tree.Groups) leaf = programLeaf(p.shape, 0);
        }
        bytes32[] memory proof = Trees.proof(shown, child);
        vm.prank(challenger);
        dispute.pickChild(game, g.position, child, shown[child], proof, leaf);
        if (g.height == depth && index < g.count) _enterLeaf(p, g, index);
    }

    function _enterLeaf(Players memory p, Game memory g, uint32 index) private pure {
        if (g.tree == Tree.Nests) {
            uint32 value = Toy.FIRST_NEST + index;
            _enter(p, Toy.pages(p.shown[value]), Toy.pages(p.right[value]));
        } else if (g.tree == Tree.Groups) {
            _enter(p, Toy.group(p.claim[g.first + 1], index), Toy.group(p.truth[g.first + 1], index));
        }
    }

    function disputeNext(Players memory p, Game memory g) internal {
        _enter(p, Toy.groups(p.claim[g.first + 1]), Toy.groups(p.truth[g.first + 1]));
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        vm.prank(challenger);
        dispute.disputeNext(game, g.position, header);
    }

    function _revealPage(Players memory p, Game memory g) private {
        vm.prank(solver);
        dispute.revealPage(game, g.position, Toy.page(p.shown[g.value], g.index));
    }

    // ---------------------------------------------------------------- word and fold

    function _pickWord(Players memory p, Game memory g) private {
        bytes memory page = Toy.page(p.shown[g.value], g.index);
        bytes memory right = Toy.page(p.right[g.value], g.index);
        uint256 wrong = 0;
        while (wrong < 1024 && page[wrong] == right[wrong]) ++wrong;
        uint256 inTensor = p.right[g.value].length - 256 * g.index;
        uint32 word = _choose(p, wrong / 4, inTensor < 256 && p.seed % 4 != 0 ? inTensor : 256);
        vm.prank(challenger);
        dispute.pickWord(game, g.position, word, page);
    }

    /// Words at the inner ends of the pieces of the stretch in dispute, for one of the executions.
    function partials(Players memory p, Game memory g, bool right) internal pure returns (bytes memory list) {
        uint32 size = g.to - g.from > 16_384 ? 16_384 : 4;
        uint32 accumulator = g.accumulator;
        Fault memory fault = right ? Toy.none() : p.fault;
        if (fault.next || fault.value != g.value || fault.word != g.word) fault = Toy.none();
        for (uint32 from = g.from; from + size < g.to; from += size) {
            accumulator = Toy.fold(right ? p.right : p.shown, g.value, g.word, from, from + size, accumulator, fault);
            list = bytes.concat(list, bytes4(accumulator));
        }
    }

    function _revealPartials(Players memory p, Game memory g) private {
        p.partials = partials(p, g, false);
        vm.prank(solver);
        dispute.revealPartials(game, g.position, p.partials);
    }

    function _pickPartial(Players memory p, Game memory g) private {
        bytes memory right = partials(p, g, true);
        uint256 wrong = 0;
        while (wrong < right.length && p.partials[wrong] == right[wrong]) ++wrong;
        uint32 piece = _choose(p, wrong / 4, right.length / 4 + 1);
        vm.prank(challenger);
        dispute.pickPartial(game, g.position, piece, p.partials);
    }

    // ---------------------------------------------------------------- last moves

    /// The root of a value of the step in dispute, with its proof.
    function valueProof(Players memory p, Game memory g, uint32 value) internal pure returns (ValueProof memory v) {
        v.value = value;
        v.root = Trees.root(Toy.pages(p.shown[value]));
        if (value < Toy.STATE) {
            uint32 group = value == 0 ? 0 : 1;
            uint32[][] memory state = p.claim[g.first];
            bytes32[] memory inGroup = Trees.proof(Toy.group(state, group), value - group);
            v.proof = Trees.concat(inGroup, Trees.proof(Toy.groups(state), group));
        } else if (value < Toy.FIRST_NEST) {
            v.proof = Trees.proof(Toy.tensorRoots(p.shown, 4, 6), value - 4);
        } else {
            v.proof = Trees.proof(nestRoots(p.shown), value - Toy.FIRST_NEST);
        }
    }

    function valueProofs(Players memory p, Game memory g) internal pure returns (ValueProof[] memory list) {
        uint32[] memory reads = Toy.reads(g.value);
        list = new ValueProof[](reads.length);
        for (uint256 i = 0; i < reads.length; ++i) {
            list[i] = valueProof(p, g, reads[i]);
        }
    }

    /// The pages that the Referee reads.
    function openings(Players memory p, Game memory g) internal pure returns (Page[] memory list) {
        uint32[] memory reads = Toy.reads(g.value);
        (uint32 first, uint32 last) = Toy.pagesRead(g.value, g.word, g.from, g.to);
        uint32 each = last - first + 1;
        list = new Page[](each * reads.length);
        for (uint32 i = 0; i < list.length; ++i) {
            uint32[] memory words = p.shown[reads[i / each]];
            uint32 index = first + i % each;
            list[i] = Page(i / each, index, Toy.page(words, index), Trees.proof(Toy.pages(words), index));
        }
    }

    function _prove(Players memory p, Game memory g) private {
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        ProgramLeaf memory nest = programLeaf(p.shape, 2 + g.value - Toy.FIRST_NEST);
        ValueProof[] memory values = valueProofs(p, g);
        Page[] memory pages = openings(p, g);
        vm.prank(challenger);
        dispute.prove(game, g.position, header, nest, values, pages);
    }

    function _proveNext(Players memory p, Game memory g) private {
        ProgramLeaf memory header = programLeaf(p.shape, 0);
        ValueProof memory value = valueProof(p, g, Toy.next(g.value));
        vm.prank(challenger);
        dispute.proveNext(game, g.position, header, value);
    }

    // ---------------------------------------------------------------- ends

    /// The segment is open again, the solver lost their stake, and the challenger won half of it.
    function assertOverturned(Reason reason) internal view {
        assertEnded(reason);
        Segment memory s = market.segments(job, 0);
        assertEq(uint8(s.state), uint8(SegmentState.Open), "opened again");
        assertEq(s.attempt, 1, "attempt");
        assertTrue(market.barred(job, solver), "barred");
        assertEq(free(solver), PURSE / 2 - STAKE, "solver's stake");
        assertEq(free(challenger), PURSE / 2 + STAKE / 2, "challenger's bounty");
        assertBurned();
    }

    /// The commitment stands, the challenger lost the bond, and the solver won half of it.
    function assertUpheld(Reason reason) internal view {
        assertEnded(reason);
        Segment memory s = market.segments(job, 0);
        assertEq(uint8(s.state), uint8(SegmentState.Committed), "stands");
        assertEq(s.games, 0, "no game is open");
        assertEq(locked(solver), STAKE, "the stake stays locked");
        assertEq(free(solver), PURSE / 2 - STAKE + STAKE / 2, "solver's bounty");
        assertEq(free(challenger), PURSE / 2 - STAKE, "challenger's bond");
        assertBurned();
    }

    function assertEnded(Reason reason) internal view {
        assertEq(uint8(at().phase), uint8(Phase.Over), "over");
        assertEq(uint8(at().reason), uint8(reason), "reason");
        assertEq(locked(challenger), 0, "no bond is locked");
    }

    function assertBurned() private view {
        assertEq(stake.burned(), STAKE - STAKE / 2, "burned");
        uint256 sum = stake.burned() + free(solver) + locked(solver) + free(challenger) + free(buyer) + free(stranger);
        assertEq(money.balanceOf(address(stake)), sum, "stakes held");
    }
}
