// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Money} from "../../../devnet/Money.sol";
import {GroupProof, JobTerms, Segment, SegmentSpec, SegmentState, Source} from "../../../interfaces/IMarket.sol";
import {IReferee} from "../../../interfaces/IReferee.sol";
import {DataRoot, JobId, PlanRoot, ProgramRoot, Seal, StateRoot} from "../../../types/Ids.sol";
import {Deployment} from "./Deployment.sol";
import {Trees} from "./Trees.sol";

/// A job of four segments. Segment 1 reads segment 0 and the initial state, 2 reads 0 and 1, and 3 reads 2:
///
///     initial ─▶ 0 ─▶ 1 ─▶ 2 ─▶ 3
///        └───────│────▲    ▲
///                └─────────┘
///
/// The Market never looks into a root, so the states here are made-up words.
abstract contract JobFixture is Deployment {
    uint32 internal constant INITIAL = type(uint32).max;
    uint32 internal constant SEGMENTS = 4;
    uint128 internal constant ESCROW = 100_000;
    uint128 internal constant PRICE = 10_000;
    uint128 internal constant STAKE = 20_001; // odd, so that halves are rounded
    uint32 internal constant LEASE = 1000;
    uint32 internal constant WINDOW = 500;
    uint32 internal constant CLOCK = 300;
    uint32 internal constant AUDIT_SHARE = 1501; // odd, so that parts are rounded
    uint64 internal constant DEADLINE = 1_000_000;
    uint256 internal constant PURSE = 10_000_000;
    bytes internal constant CID = hex"01551220";

    address internal buyer = makeAddr("buyer");
    address internal solver = makeAddr("solver");
    address internal other = makeAddr("other");
    address internal challenger = makeAddr("challenger");
    address internal stranger = makeAddr("stranger");
    JobId internal job;
    /// Group roots that each segment's next commitment posts.
    mapping(uint32 segment => bytes32[]) internal outputs;

    function setUp() public virtual {
        vm.warp(1000);
        deploy(new Money(), IReferee(makeAddr("referee")));
        address[4] memory actors = [buyer, solver, other, challenger];
        for (uint256 i = 0; i < actors.length; ++i) {
            fund(actors[i], PURSE);
            deposit(actors[i], PURSE / 2);
        }
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            setOutputs(i, "first");
        }
        job = post();
    }

    // ---------------------------------------------------------------- the job

    function terms() internal pure returns (JobTerms memory) {
        return JobTerms({
            planRoot: PlanRoot.wrap(Trees.root(planLeaves())),
            initialRoot: StateRoot.wrap(Trees.root(initialGroups())),
            initialGroups: 3,
            segments: SEGMENTS,
            escrow: ESCROW,
            stake: STAKE,
            lease: LEASE,
            window: WINDOW,
            clock: CLOCK,
            auditRate: 0,
            auditShare: AUDIT_SHARE,
            deadline: DEADLINE
        });
    }

    function initialGroups() internal pure returns (bytes32[] memory groups) {
        groups = new bytes32[](3);
        for (uint256 i = 0; i < 3; ++i) {
            groups[i] = keccak256(abi.encode("initial", i));
        }
    }

    function spec(uint32 segment) internal pure virtual returns (SegmentSpec memory s) {
        s.programRoot = ProgramRoot.wrap(keccak256("program"));
        s.dataRoot = DataRoot.wrap(keccak256("data"));
        (s.steps, s.interval) = (10, 3);
        s.price = PRICE + segment;
        s.inputs = new Source[](segment == 2 ? 3 : 2);
        if (segment == 0) (s.inputs[0], s.inputs[1]) = (Source(INITIAL, 0), Source(INITIAL, 1));
        if (segment == 1) (s.inputs[0], s.inputs[1]) = (Source(0, 0), Source(INITIAL, 2));
        if (segment == 2) (s.inputs[0], s.inputs[1], s.inputs[2]) = (Source(0, 1), Source(1, 0), Source(1, 1));
        if (segment == 3) (s.inputs[0], s.inputs[1]) = (Source(2, 2), Source(2, 0));
    }

    function planLeaves() internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](SEGMENTS);
        for (uint32 i = 0; i < SEGMENTS; ++i) {
            leaves[i] = Trees.leaf(abi.encode(spec(i)));
        }
    }

    function setOutputs(uint32 segment, string memory label) internal {
        delete outputs[segment];
        for (uint256 i = 0; i < spec(segment).inputs.length; ++i) {
            outputs[segment].push(keccak256(abi.encode(label, segment, i)));
        }
    }

    function planProof(uint32 segment) internal pure returns (bytes32[] memory) {
        return Trees.proof(planLeaves(), segment);
    }

    /// What a claim of the segment would start from now.
    function sourcesOf(uint32 segment) internal view virtual returns (Source[] memory) {
        return spec(segment).inputs;
    }

    function inputProofs(uint32 segment) internal view returns (GroupProof[] memory proofs) {
        Source[] memory sources = sourcesOf(segment);
        proofs = new GroupProof[](sources.length);
        for (uint256 i = 0; i < sources.length; ++i) {
            bytes32[] memory groups = sources[i].segment == INITIAL ? initialGroups() : outputs[sources[i].segment];
            proofs[i] = GroupProof(groups[sources[i].group], Trees.proof(groups, sources[i].group));
        }
    }

    function inputRoot(uint32 segment) internal view returns (bytes32) {
        GroupProof[] memory proofs = inputProofs(segment);
        bytes32[] memory groups = new bytes32[](proofs.length);
        for (uint256 i = 0; i < proofs.length; ++i) {
            groups[i] = proofs[i].root;
        }
        return Trees.root(groups);
    }

    function traceRoot(uint32 segment) internal pure returns (bytes32) {
        return keccak256(abi.encode("trace", segment));
    }

    function sealOf(uint32 segment, address account) internal pure returns (Seal) {
        return Seal.wrap(sha256(abi.encodePacked(traceRoot(segment), account)));
    }

    /// What is reserved for a segment: price and pot.
    function cost(uint32 segment) internal pure returns (uint256) {
        return spec(segment).price + pot(segment);
    }

    function pot(uint32 segment) internal pure returns (uint256) {
        return uint256(spec(segment).price) * AUDIT_SHARE / 10_000;
    }

    function fee(uint32 segment) internal pure returns (uint256) {
        return uint256(spec(segment).price) * FEE_RATE / 10_000;
    }

    /// What the solver of a segment is owed.
    function pay(uint32 segment) internal pure returns (uint256) {
        return spec(segment).price - fee(segment);
    }

    // ---------------------------------------------------------------- actions

    function post() internal returns (JobId) {
        return post(terms());
    }

    function post(JobTerms memory t) internal returns (JobId) {
        vm.prank(buyer);
        return market.post(t, CID);
    }

    function claim(address account, uint32 segment) internal {
        bytes32[] memory proof = planProof(segment);
        GroupProof[] memory inputs = inputProofs(segment);
        vm.prank(account);
        market.claim(job, segment, spec(segment), proof, inputs);
    }

    function commit(address account, uint32 segment) internal {
        Seal seal = sealOf(segment, account);
        StateRoot inputs = at(segment).inputRoot;
        vm.prank(account);
        market.commit(job, segment, inputs, outputs[segment], seal, CID);
    }

    function deliver(address account, uint32 segment) internal {
        claim(account, segment);
        commit(account, segment);
    }

    function settle(uint32 segment) internal {
        market.settle(job, segment, spec(segment), traceRoot(segment));
    }

    function overturn(uint32 segment) internal {
        uint32 attempt = at(segment).attempt;
        vm.startPrank(address(dispute));
        market.disputed(job, segment);
        market.overturn(job, segment, attempt, challenger);
        stake.slash(solver, STAKE, challenger);
        vm.stopPrank();
    }

    function pass(uint256 time) internal {
        vm.warp(vm.getBlockTimestamp() + time);
    }

    // ---------------------------------------------------------------- views

    function at(uint32 segment) internal view returns (Segment memory) {
        return market.segments(job, segment);
    }

    function assertState(uint32 segment, SegmentState state) internal view {
        assertEq(uint8(at(segment).state), uint8(state), "state");
    }

    function reserved() internal view returns (uint256 amount) {
        (,, amount,,) = market.jobs(job);
    }

    function spent() internal view returns (uint256 amount) {
        (,,, amount,) = market.jobs(job);
    }

    function settled() internal view returns (uint32 count) {
        (,,,, count) = market.jobs(job);
    }
}
