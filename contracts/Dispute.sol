// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute, Phase, ProgramLeaf, Reason, Tree, ValueProof} from "./interfaces/IDispute.sol";
import {IMarket, JobTerms, Segment, SegmentSpec} from "./interfaces/IMarket.sol";
import {HeaderShape, IReferee, NestShape, Operand, Page} from "./interfaces/IReferee.sol";
import {IStake} from "./interfaces/IStake.sol";
import {Clock} from "./libraries/Clock.sol";
import {Descent} from "./libraries/Descent.sol";
import {Fold} from "./libraries/Fold.sol";
import {Plan} from "./libraries/Plan.sol";
import {Programs} from "./libraries/Programs.sol";
import {Roots} from "./libraries/Roots.sol";
import {GameId, JobId, Seal, StateRoot} from "./types/Ids.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

contract Dispute is IDispute {
    using Clock for Game;
    using Descent for Game;
    using Fold for Game;
    using Programs for Game;
    using Programs for HeaderShape;

    uint256 private constant PAGE_WORDS = 256;
    uint256 private constant PAGE_BYTES = 1024;
    uint32 private constant HEADER_ALONE = type(uint32).max;

    IMarket public immutable market;
    IStake public immutable stake;
    IReferee public immutable referee;

    /// @inheritdoc IDispute
    uint64 public gameCount;
    mapping(GameId game => Game) private _games;

    error ZeroAddress();

    constructor(IMarket market_, IStake stake_, IReferee referee_) {
        if (address(market_) == address(0) || address(stake_) == address(0) || address(referee_) == address(0)) {
            revert ZeroAddress();
        }
        (market, stake, referee) = (market_, stake_, referee_);
    }

    // ---------------------------------------------------------------- beginning and end

    /// @inheritdoc IDispute
    function challenge(JobId job, uint32 segment, SegmentSpec calldata spec, Seal seal) external returns (GameId id) {
        (Segment memory s, JobTerms memory terms) = market.disputed(job, segment);
        // INVARIANT: nobody disputes another commitment than the one they saw, whatever became of the chain.
        if (s.seal != seal) revert SealChanged(s.seal, seal);
        // INVARIANT: the dispute is about the work that was claimed.
        if (Plan.leaf(spec) != s.leaf) revert BadProof();
        id = GameId.wrap(++gameCount);
        Game storage g = _games[id];
        g.phase = Phase.RevealTrace;
        g.since = uint64(Math.max(block.timestamp, Plan.attestUntil(s.until, terms.window) + 1));
        (g.defenderLeft, g.challengerLeft) = (terms.clock, terms.clock);
        (g.job, g.segment, g.attempt) = (job, segment, s.attempt);
        (g.defender, g.challenger, g.bond) = (s.solver, msg.sender, terms.stake);
        (g.programRoot, g.dataRoot) = (spec.programRoot, spec.dataRoot);
        (g.steps, g.interval, g.length) = (spec.steps, spec.interval, spec.steps);
        (g.before, g.afterRoot, g.listRoot) = (s.inputRoot, s.outputRoot, Seal.unwrap(s.seal));
        g.position = keccak256(abi.encode(id, job, segment, s.attempt, s.solver, msg.sender, s.seal));
        emit Challenged(id, job, segment, s.attempt, msg.sender, s.solver);
        stake.lock(msg.sender, terms.stake);
    }

    /// @inheritdoc IDispute
    function timeout(GameId id) external {
        Game storage g = _running(id);
        if (!g.isOver()) revert ClockRunning(g.since, g.left());
        _end(id, g, Reason.Timeout, g.defenderMoves());
    }

    /// @inheritdoc IDispute
    function close(GameId id) external {
        Game storage g = _running(id);
        if (!_isMoot(g)) revert NotMoot();
        _end(id, g, Reason.Moot, false);
    }

    /// @inheritdoc IDispute
    function games(GameId id) external view returns (Game memory) {
        return _games[id];
    }

    // ---------------------------------------------------------------- trace and interval

    /// @inheritdoc IDispute
    function revealTrace(GameId id, bytes32 position, bytes32[] calldata checkpoints) external {
        Game storage g = _move(id, position, Phase.RevealTrace);
        _requireLength(checkpoints.length, Plan.checkpoints(g.steps, g.interval) + 1);
        emit TraceRevealed(id, g.position, checkpoints);
        bytes32 root = Roots.root(checkpoints);
        if (sha256(abi.encodePacked(root, g.defender)) != g.listRoot) return _end(id, g, Reason.BadChildren, true);
        _bind(id, g, checkpoints, root, Phase.PickCheckpoint);
    }

    /// @inheritdoc IDispute
    function pickCheckpoint(
        GameId id,
        bytes32 position,
        uint32 checkpoint,
        bytes32 before,
        bytes32[] calldata beforeProof,
        bytes32 afterRoot,
        bytes32[] calldata afterProof
    ) external {
        Game storage g = _move(id, position, Phase.PickCheckpoint);
        _pickPair(g, checkpoint, before, beforeProof, afterRoot, afterProof);
        g.first = (checkpoint - 1) * g.interval;
        uint32 left = g.steps - g.first;
        g.length = left < g.interval ? left : g.interval;
        g.phase = g.length == 1 ? Phase.RevealStep : Phase.RevealStates;
        emit CheckpointPicked(id, g.position, checkpoint);
    }

    /// @inheritdoc IDispute
    function revealStates(GameId id, bytes32 position, bytes32[] calldata states) external {
        Game storage g = _move(id, position, Phase.RevealStates);
        _requireLength(states.length, g.length + 1);
        emit StatesRevealed(id, g.position, states);
        _bind(id, g, states, Roots.root(states), Phase.PickStep);
    }

    /// @inheritdoc IDispute
    function pickStep(
        GameId id,
        bytes32 position,
        uint32 step,
        bytes32 before,
        bytes32[] calldata beforeProof,
        bytes32 afterRoot,
        bytes32[] calldata afterProof
    ) external {
        Game storage g = _move(id, position, Phase.PickStep);
        _pickPair(g, step, before, beforeProof, afterRoot, afterProof);
        g.first += step - 1;
        g.length = 1;
        g.phase = Phase.RevealStep;
        emit StepPicked(id, g.position, step);
    }

    // ---------------------------------------------------------------- step, tensor, page

    /// @inheritdoc IDispute
    function revealStep(GameId id, bytes32 position, ProgramLeaf calldata header, bytes32[] calldata children)
        external
    {
        Game storage g = _move(id, position, Phase.RevealStep);
        HeaderShape memory shape = _header(g, header);
        bytes32 root = Roots.root(children);
        g.enter(Tree.Nests, root, shape.nests);
        _requireLength(children.length, Descent.fanOut(g.height));
        g.nestsRoot = root;
        g.value = shape.firstNest();
        g.phase = Phase.PickChild;
        emit ChildrenRevealed(id, g.position, Tree.Nests, children);
    }

    /// @inheritdoc IDispute
    function revealChildren(GameId id, bytes32 position, bytes32[] calldata children) external {
        Game storage g = _move(id, position, Phase.RevealChildren);
        _requireLength(children.length, Descent.fanOut(g.height));
        emit ChildrenRevealed(id, g.position, g.tree, children);
        if (Roots.root(children) != g.node) return _end(id, g, Reason.BadChildren, true);
        g.phase = Phase.PickChild;
    }

    /// @inheritdoc IDispute
    function pickChild(
        GameId id,
        bytes32 position,
        uint32 child,
        bytes32 node,
        bytes32[] calldata proof,
        ProgramLeaf calldata leaf
    ) external {
        Game storage g = _move(id, position, Phase.PickChild);
        g.down(child, node, proof);
        emit ChildPicked(id, g.position, g.tree, g.index);
        if (g.height > 0) g.phase = Phase.RevealChildren;
        else if (g.index >= g.count) _endPadding(id, g, node == 0);
        else if (g.tree == Tree.Nests) _enterNest(id, g, leaf);
        else if (g.tree == Tree.Groups) _enterGroup(g, leaf);
        else if (g.tree == Tree.Tensors) _enterTensor(g);
        else g.phase = Phase.RevealPage;
    }

    /// @inheritdoc IDispute
    function disputeNext(GameId id, bytes32 position, ProgramLeaf calldata header) external {
        Game storage g = _move(id, position, Phase.PickChild);
        // INVARIANT: who disputes the next state has picked no nest.
        if (g.tree != Tree.Nests || g.node != g.nestsRoot) revert NotAtRoot(g.tree, g.height);
        g.enter(Tree.Groups, StateRoot.unwrap(g.afterRoot), _header(g, header).groups.length);
        g.phase = g.height == 0 ? Phase.PickChild : Phase.RevealChildren;
        emit NextDisputed(id, g.position);
    }

    /// @inheritdoc IDispute
    function revealPage(GameId id, bytes32 position, bytes calldata words) external {
        Game storage g = _move(id, position, Phase.RevealPage);
        _requireLength(words.length, PAGE_BYTES);
        emit PageRevealed(id, g.position, g.index, words);
        if (Roots.leaf(words) != g.node) return _end(id, g, Reason.BadChildren, true);
        g.phase = Phase.PickWord;
    }

    // ---------------------------------------------------------------- word and fold

    /// @inheritdoc IDispute
    function pickWord(GameId id, bytes32 position, uint32 word, bytes calldata page) external {
        Game storage g = _move(id, position, Phase.PickWord);
        if (word >= PAGE_WORDS) revert OutOfRange(word, PAGE_WORDS);
        if (Roots.leaf(page) != g.node) revert BadProof();
        uint32 claimed = Fold.wordOfPage(page, word);
        g.word = uint32(g.index * PAGE_WORDS + word);
        g.claimed = claimed;
        emit WordPicked(id, g.position, g.word, claimed);
        if (g.word >= g.words) return _endPadding(id, g, claimed == 0);
        g.to = g.foldLength;
        g.phase = g.isShort() ? Phase.Prove : Phase.RevealPartials;
    }

    /// @inheritdoc IDispute
    function revealPartials(GameId id, bytes32 position, bytes calldata partials) external {
        Game storage g = _move(id, position, Phase.RevealPartials);
        // slither-disable-next-line unused-return: only their number is asked.
        (, uint256 pieces) = Fold.cut(g.to - g.from);
        _requireLength(partials.length, 4 * (pieces - 1));
        g.listHash = keccak256(partials);
        g.phase = Phase.PickPartial;
        emit PartialsRevealed(id, g.position, partials);
    }

    /// @inheritdoc IDispute
    function pickPartial(GameId id, bytes32 position, uint32 piece, bytes calldata partials) external {
        Game storage g = _move(id, position, Phase.PickPartial);
        if (keccak256(partials) != g.listHash) revert BadProof();
        g.narrow(piece, partials);
        g.phase = g.isShort() ? Phase.Prove : Phase.RevealPartials;
        emit PartialPicked(id, g.position, g.from, g.to, g.accumulator, g.claimed);
    }

    // ---------------------------------------------------------------- last moves

    /// @inheritdoc IDispute
    function prove(
        GameId id,
        bytes32 position,
        ProgramLeaf calldata header,
        ProgramLeaf calldata nest,
        ValueProof[] calldata values,
        Page[] calldata pages
    ) external {
        Game storage g = _move(id, position, Phase.Prove);
        HeaderShape memory shape = _header(g, header);
        g.requireNest(shape.nests, g.value - shape.firstNest(), nest);
        Operand[] memory operands = new Operand[](values.length);
        for (uint256 i = 0; i < values.length; ++i) {
            // INVARIANT: what comes before the nest is agreed, and nothing else.
            if (values[i].value >= g.value) revert OutOfRange(values[i].value, g.value);
            g.requireValue(shape, values[i]);
            operands[i] = Operand(values[i].value, values[i].root);
        }
        uint32 computed = referee.evaluate(nest.data, operands, pages, g.word, g.from, g.to, g.accumulator);
        emit Judged(id, computed, g.claimed);
        if (computed == g.claimed) _end(id, g, Reason.RightWord, false);
        else _end(id, g, Reason.WrongWord, true);
    }

    /// @inheritdoc IDispute
    function proveNext(GameId id, bytes32 position, ProgramLeaf calldata header, ValueProof calldata value) external {
        Game storage g = _move(id, position, Phase.ProveNext);
        HeaderShape memory shape = _header(g, header);
        // INVARIANT: the value is the one that the program makes this tensor's next.
        if (value.value != referee.nextOf(header.data, g.value)) revert BadProof();
        g.requireValue(shape, value);
        if (value.root == g.node) _end(id, g, Reason.BindingHolds, false);
        else _end(id, g, Reason.BadBinding, true);
    }

    /// @inheritdoc IDispute
    function proveInvalidNest(
        GameId id,
        bytes32 position,
        ProgramLeaf calldata header,
        uint32 index,
        ProgramLeaf calldata nest,
        uint32 read,
        ProgramLeaf calldata producer
    ) external {
        Game storage g = _challengersMove(id, position);
        HeaderShape memory shape = _header(g, header);
        g.requireNest(shape.nests, index, nest);
        uint32 first = shape.firstNest();
        // INVARIANT: a nest is judged by the one that gives what it reads, not by one that the challenger made up.
        bool produced = read >= first && read - first < index;
        if (produced) g.requireNest(shape.nests, read - first, producer);
        bool invalid =
            referee.isInvalid(header.data, index, nest.data, read, produced ? producer.data : header.data[:0]);
        _endInvalid(id, g, invalid);
    }

    /// @inheritdoc IDispute
    function proveInvalidHeader(
        GameId id,
        bytes32 position,
        ProgramLeaf calldata header,
        uint32 tensor,
        ProgramLeaf calldata producer
    ) external {
        Game storage g = _challengersMove(id, position);
        bool produced = false;
        if (tensor == HEADER_ALONE) {
            g.requireUndecoded(header);
        } else {
            HeaderShape memory shape = _header(g, header);
            uint32 value = referee.nextOf(header.data, tensor);
            // INVARIANT: the type is that of the nest that gives the value, not of one that the challenger made up.
            produced = shape.isNest(value);
            if (produced) g.requireNest(shape.nests, value - shape.firstNest(), producer);
        }
        _endInvalid(id, g, referee.isInvalidHeader(header.data, tensor, produced ? producer.data : header.data[:0]));
    }

    // ---------------------------------------------------------------- turns

    function _running(GameId id) private view returns (Game storage g) {
        g = _games[id];
        if (!g.isOn()) revert WrongPhase(g.phase, Phase.Over);
    }

    /// Begins a move: checks phase, position, player and clock, and takes the time.
    function _move(GameId id, bytes32 position, Phase phase) private returns (Game storage g) {
        g = _games[id];
        if (g.phase != phase) revert WrongPhase(g.phase, phase);
        _answer(g, position);
    }

    /// Begins a move that is open at any of the challenger's turns.
    function _challengersMove(GameId id, bytes32 position) private returns (Game storage g) {
        g = _running(id);
        if (g.defenderMoves()) revert NotPlayer(g.defender, msg.sender);
        _answer(g, position);
    }

    function _answer(Game storage g, bytes32 position) private {
        // INVARIANT: a move answers one position, whatever became of the chain since it was signed.
        if (g.position != position) revert WrongPosition(g.position, position);
        g.take();
        g.position = keccak256(abi.encodePacked(position, msg.data));
    }

    function _requireLength(uint256 actual, uint256 needed) private pure {
        if (actual != needed) revert WrongLength(actual, needed);
    }

    // ---------------------------------------------------------------- steps of the game

    /// Takes a list of states whose ends must be what is agreed and what is claimed.
    function _bind(GameId id, Game storage g, bytes32[] calldata states, bytes32 root, Phase next) private {
        uint256 last = states.length - 1;
        if (states[0] != StateRoot.unwrap(g.before) || states[last] != StateRoot.unwrap(g.afterRoot)) {
            return _end(id, g, Reason.BadBinding, true);
        }
        g.listRoot = root;
        g.listCount = uint32(states.length);
        g.phase = next;
    }

    /// Narrows the dispute to states i - 1 and i of the list shown last.
    function _pickPair(
        Game storage g,
        uint32 i,
        bytes32 before,
        bytes32[] calldata beforeProof,
        bytes32 afterRoot,
        bytes32[] calldata afterProof
    ) private {
        uint32 count = g.listCount;
        if (i == 0 || i >= count) revert OutOfRange(i, count);
        // INVARIANT: the challenger disputes what the defender showed.
        if (
            !Roots.verify(g.listRoot, count, before, i - 1, beforeProof)
                || !Roots.verify(g.listRoot, count, afterRoot, i, afterProof)
        ) revert BadProof();
        (g.before, g.afterRoot) = (StateRoot.wrap(before), StateRoot.wrap(afterRoot));
    }

    /// At the output of a nest: on to its pages.
    function _enterNest(GameId id, Game storage g, ProgramLeaf calldata nest) private {
        g.requireNest(g.count, g.index, nest);
        (bool valid, NestShape memory shape) = Programs.nestShape(referee, nest.data);
        if (!valid) return _end(id, g, Reason.InvalidProgram, true);
        g.value += g.index;
        (g.words, g.foldLength, g.accumulator) = (shape.words, shape.foldLength, shape.init);
        g.enter(Tree.Pages, g.node, (shape.words + PAGE_WORDS - 1) / PAGE_WORDS);
        g.phase = g.height == 0 ? Phase.RevealPage : Phase.RevealChildren;
    }

    /// At a group of the claimed next state: on to its tensors.
    function _enterGroup(Game storage g, ProgramLeaf calldata header) private {
        HeaderShape memory shape = _header(g, header);
        g.value = shape.firstTensor(g.index);
        g.enter(Tree.Tensors, g.node, shape.groups[g.index]);
        g.phase = g.height == 0 ? Phase.ProveNext : Phase.RevealChildren;
    }

    function _enterTensor(Game storage g) private {
        g.value += g.index;
        g.phase = Phase.ProveNext;
    }

    function _header(Game storage g, ProgramLeaf calldata header) private view returns (HeaderShape memory shape) {
        shape = referee.headerOf(header.data);
        g.requireHeader(shape.nests, header);
    }

    // ---------------------------------------------------------------- ends

    function _endPadding(GameId id, Game storage g, bool isZero) private {
        if (isZero) _end(id, g, Reason.PaddingHolds, false);
        else _end(id, g, Reason.BadPadding, true);
    }

    function _endInvalid(GameId id, Game storage g, bool invalid) private {
        if (invalid) _end(id, g, Reason.InvalidProgram, true);
        else _end(id, g, Reason.ValidProgram, false);
    }

    function _isMoot(Game storage g) private view returns (bool) {
        return market.segments(g.job, g.segment).attempt != g.attempt;
    }

    /// Ends the game: the loser's stake or bond is slashed, unless the attempt is gone.
    function _end(GameId id, Game storage g, Reason reason, bool overturns) private {
        bool moot = _isMoot(g);
        (g.phase, g.reason) = (Phase.Over, moot ? Reason.Moot : reason);
        (address challenger, uint256 bond) = (g.challenger, g.bond);
        (address winner, address loser) = overturns ? (challenger, g.defender) : (g.defender, challenger);
        if (moot) (winner, loser) = (address(0), address(0));
        emit Closed(id, winner, loser, g.reason);
        // INVARIANT: an attempt is overturned once, and nobody loses a bond over one that is gone.
        if (!moot) {
            if (overturns) market.overturn(g.job, g.segment, g.attempt, challenger);
            else market.upheld(g.job, g.segment, g.attempt);
            stake.slash(loser, bond, winner);
        }
        if (moot || overturns) stake.unlock(challenger, bond);
    }
}
