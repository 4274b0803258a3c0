// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// Income of one token, shared by holders in proportion to their shares, without a loop over them. Amounts are counted
/// in units of 1/SCALE, and nothing is rounded before it is paid out: what all holders have and the remainder are
/// together exactly what came in.
library Income {
    /// A power of ten, so that common divisions come out even.
    uint256 private constant SCALE = 1e30;

    struct Account {
        uint256 seen; // perShare when the account's income was last brought up to date
        uint256 due; // 1/SCALE units
    }

    /// @param total ever put in. Since it is 128 bits wide, `perShare` is less than 2^228, and so is what anybody is due.
    struct Pool {
        uint128 total;
        uint256 perShare;
        uint256 remainder;
        mapping(address holder => Account) accounts;
    }

    error NoShares();

    /// Shares `amount` among all `supply` shares that there are now.
    function add(Pool storage pool, uint128 amount, uint256 supply) internal {
        if (supply == 0) revert NoShares();
        pool.total += amount;
        uint256 scaled = amount * SCALE + pool.remainder;
        pool.perShare += scaled / supply;
        pool.remainder = scaled % supply;
    }

    /// To be called before the account's balance changes from `balance`.
    function update(Pool storage pool, address account, uint256 balance) internal {
        Account storage a = pool.accounts[account];
        uint256 perShare = pool.perShare;
        if (a.seen == perShare) return;
        a.due += balance * (perShare - a.seen);
        a.seen = perShare;
    }

    /// Gives the account what `shares` have earned since there is income.
    function endow(Pool storage pool, address account, uint256 shares) internal {
        pool.accounts[account].due += shares * pool.perShare;
    }

    /// Takes out whole units of what an account with `balance` is due.
    function take(Pool storage pool, address account, uint256 balance) internal returns (uint256 amount) {
        update(pool, account, balance);
        Account storage a = pool.accounts[account];
        // slither-disable-next-line divide-before-multiply: whole units go, the rest stays due.
        amount = a.due / SCALE;
        a.due -= amount * SCALE;
    }

    /// What `take` would give.
    function due(Pool storage pool, address account, uint256 balance) internal view returns (uint256) {
        Account storage a = pool.accounts[account];
        return (a.due + balance * (pool.perShare - a.seen)) / SCALE;
    }
}
