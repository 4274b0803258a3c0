// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IMarket, JobTerms, SegmentSpec, Source} from "../interfaces/IMarket.sol";

/// What a plan and its job may look like.
library Plan {
    uint32 internal constant INITIAL = type(uint32).max;
    uint256 private constant MAX_SEGMENTS = 2 ** 31;
    uint256 private constant MAX_GROUPS = 256;
    uint256 private constant MAX_INTERVAL = 256;
    uint256 private constant MAX_CHECKPOINTS = 256;
    uint256 private constant MAX_PERIOD = 30 days;
    uint256 private constant MAX_DEADLINE = 3650 days;

    uint256 private constant MAX_AUDIT = 40_000; // four auditors, or four prices, in 1/10,000
    uint256 private constant WHOLE = 10_000;

    /// `unbonding` is how long an auditor's stake stays locked after leaving.
    function validate(JobTerms memory terms, uint64 unbonding) internal view {
        if (terms.segments == 0 || terms.segments > MAX_SEGMENTS) revert IMarket.InvalidTerms("segments");
        if (terms.initialGroups == 0 || terms.initialGroups > MAX_GROUPS) revert IMarket.InvalidTerms("initialGroups");
        if (terms.lease == 0 || terms.lease > MAX_PERIOD) revert IMarket.InvalidTerms("lease");
        // Half of a window is for attesting, half for revealing.
        if (terms.window < 2 || terms.window > MAX_PERIOD) revert IMarket.InvalidTerms("window");
        if (terms.clock < 2 || terms.clock > MAX_PERIOD) revert IMarket.InvalidTerms("clock");
        // INVARIANT: a window, a game and time to punish are over before an auditor's stake is free.
        if (uint256(terms.window) + 3 * uint256(terms.clock) > unbonding) revert IMarket.InvalidTerms("unbonding");
        if (terms.auditRate > MAX_AUDIT) revert IMarket.InvalidTerms("auditRate");
        if (terms.auditShare > MAX_AUDIT) revert IMarket.InvalidTerms("auditShare");
        if (terms.deadline <= block.timestamp || terms.deadline > block.timestamp + MAX_DEADLINE) {
            revert IMarket.InvalidTerms("deadline");
        }
    }

    function validate(SegmentSpec calldata spec, uint32 segment) internal pure {
        if (spec.steps == 0) revert IMarket.InvalidSpec("steps");
        if (spec.interval == 0 || spec.interval > MAX_INTERVAL) revert IMarket.InvalidSpec("interval");
        if (checkpoints(spec.steps, spec.interval) > MAX_CHECKPOINTS) revert IMarket.InvalidSpec("checkpoints");
        if (spec.inputs.length == 0 || spec.inputs.length > MAX_GROUPS) revert IMarket.InvalidSpec("inputs");
        _checkSources(spec.inputs, segment);
        if (spec.fallbacks.length != 0 && spec.fallbacks.length != spec.inputs.length) {
            revert IMarket.InvalidSpec("fallbacks");
        }
        _checkSources(spec.fallbacks, segment);
        uint256 optional = 0;
        for (uint256 i = 0; i < spec.fallbacks.length; ++i) {
            if (isOptional(spec, i)) ++optional;
        }
        if (spec.quorum > optional) revert IMarket.InvalidSpec("quorum");
    }

    function _checkSources(Source[] calldata list, uint32 segment) private pure {
        for (uint256 i = 0; i < list.length; ++i) {
            uint32 source = list[i].segment;
            if (source != INITIAL && source >= segment) revert IMarket.InvalidSpec("source");
        }
    }

    /// Whether input `i` has a fallback, which is another source.
    function isOptional(SegmentSpec calldata spec, uint256 i) internal pure returns (bool) {
        if (spec.fallbacks.length == 0) return false;
        Source calldata fallback_ = spec.fallbacks[i];
        return fallback_.segment != spec.inputs[i].segment || fallback_.group != spec.inputs[i].group;
    }

    /// Where the inputs come from if those whose bits are set in `absent` are not there.
    function sources(SegmentSpec calldata spec, uint256 absent) internal pure returns (Source[] memory list) {
        list = spec.inputs;
        for (uint256 i = 0; absent >> i != 0; ++i) {
            if (absent >> i & 1 != 0) list[i] = spec.fallbacks[i];
        }
    }

    /// `amount · part / 10,000`, rounded down.
    function partOf(uint256 amount, uint256 part) internal pure returns (uint256) {
        return amount * part / WHOLE;
    }

    /// Until when attestations of a commitment are taken whose window ends at `until`.
    function attestUntil(uint64 until, uint32 window) internal pure returns (uint64) {
        return until - window / 2;
    }

    /// Checkpoints after the input: one at the end of each interval.
    function checkpoints(uint32 steps, uint32 interval) internal pure returns (uint256) {
        return (uint256(steps) + interval - 1) / interval;
    }

    /// The plan's leaf of a segment.
    function leaf(SegmentSpec calldata spec) internal pure returns (bytes32) {
        return sha256(bytes.concat(bytes1(0), abi.encode(spec)));
    }
}
