// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Game, IDispute, Phase} from "../interfaces/IDispute.sol";

/// Whose move is awaited, and until when: a chess clock for each player.
library Clock {
    function isOn(Game storage g) internal view returns (bool) {
        return g.phase != Phase.None && g.phase != Phase.Over;
    }

    function defenderMoves(Game storage g) internal view returns (bool) {
        Phase phase = g.phase;
        return phase == Phase.RevealTrace || phase == Phase.RevealStates || phase == Phase.RevealStep
            || phase == Phase.RevealChildren || phase == Phase.RevealPage || phase == Phase.RevealPartials;
    }

    /// Seconds left to the player who has to move, at `since`.
    function left(Game storage g) internal view returns (uint32) {
        return defenderMoves(g) ? g.defenderLeft : g.challengerLeft;
    }

    function isOver(Game storage g) internal view returns (bool) {
        return block.timestamp > uint256(g.since) + left(g);
    }

    /// Takes the time since the last move from whom this move was awaited. Reverts with NotPlayer, NotBegun or ClockOver.
    function take(Game storage g) internal {
        bool byDefender = defenderMoves(g);
        address mover = byDefender ? g.defender : g.challenger;
        // INVARIANT: nobody moves for another, or after their time.
        if (msg.sender != mover) revert IDispute.NotPlayer(mover, msg.sender);
        // INVARIANT: nothing of the trace is shown while attestations are taken.
        if (block.timestamp < g.since) revert IDispute.NotBegun(g.since);
        if (isOver(g)) revert IDispute.ClockOver(g.since, left(g));
        uint32 taken = uint32(block.timestamp - g.since);
        if (byDefender) g.defenderLeft -= taken;
        else g.challengerLeft -= taken;
        g.since = uint64(block.timestamp);
    }
}
