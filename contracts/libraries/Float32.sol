// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// IEEE-754 binary32 arithmetic on words: round to nearest even, subnormals kept, one NaN.
///
/// A word is a uint256 below 2^32, so that nothing is masked between operations; callers must pass no other value.
/// Inputs may hold any NaN; a result that is NaN is always NAN.
///
/// A finite value is sign * m * 2^e with an integer m. Each operation computes its exact result, or one that differs
/// from it so far below the last place that it rounds alike, and rounds it once (Muller et al., Handbook of Floating-
/// Point Arithmetic, 2nd ed., chapter 7). Each has a short path for operands whose exponent field is between 48 and 175
/// and whose result then cannot leave the normal range; everything else is _fmaAny, _divAny and _round.
/// A "scaled" exponent is times 2^23, the place that it has in a word.
library Float32 {
    uint256 internal constant NAN = 0x7fc00000;
    uint256 internal constant INFINITY = 0x7f800000;
    uint256 internal constant ONE = 0x3f800000;
    uint256 internal constant SIGN = 0x80000000;
    uint256 private constant MAGNITUDE = 0x7fffffff;
    uint256 private constant FRACTION = 0x007fffff;
    uint256 private constant IMPLICIT = 0x00800000;

    /// The bit of _middle that says whether the exponent field is between 48 and 175.
    uint256 private constant MIDDLE = 0x40000000;

    /// floor(log2(i)) in byte i, for i below 32.
    uint256 private constant LOG2_BELOW_32 = 0x0000010102020202030303030303030304040404040404040404040404040404;

    /// In _fmaAny, two terms as far apart as this overlap in no bit, and the lower one only decides the rounding.
    uint256 private constant FAR = 76;

    /// a + b
    function add(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            // a moves up by 60, b by `shift`, which lies in [-67, 187]; its bit 7 is clear only in [0, 127].
            uint256 scaledShift = (b & INFINITY) - (a & INFINITY) + (60 << 23);
            if (_middle(a) & _middle(b) & ~scaledShift & MIDDLE == 0) return _fmaAny(a, ONE, b);
            uint256 shift = scaledShift >> 23;
            uint256 sum = (_normal(a) << 60) + (_normal(b) * _sign(a ^ b) << shift);
            uint256 negative = uint256(int256(sum) >> 255);
            sum = (sum ^ negative) - negative;
            return _roundNear(sum, _max(shift, 60), (a & INFINITY) - (63 << 23), a ^ negative);
        }
    }

    /// a - b
    function sub(uint256 a, uint256 b) internal pure returns (uint256) {
        return add(a, b ^ SIGN);
    }

    /// a * b
    function mul(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            // The exponent field of the result less one, or two: not negative if the result is normal.
            uint256 exponent = (a & INFINITY) + (b & INFINITY) - (128 << 23);
            if (_middle(a) & _middle(b) & ~(exponent >> 2) & MIDDLE == 0) return _fmaAny(a, b, (a ^ b) & SIGN);
            return _roundNear(_normal(a) * _normal(b), 25, exponent - (25 << 23), a ^ b);
        }
    }

    /// a / b
    function div(uint256 a, uint256 b) internal pure returns (uint256) {
        unchecked {
            // The exponent field of the result less one, or two: not negative if the result is normal.
            uint256 exponent = (a & INFINITY) - (b & INFINITY) + (125 << 23);
            if (_middle(a) & _middle(b) & ~(exponent >> 2) & MIDDLE == 0) return _divAny(a, b);
            uint256 dividend = _normal(a) << 26;
            uint256 divisor = _normal(b);
            uint256 quotient;
            assembly ("memory-safe") {
                // slither-disable-next-line divide-before-multiply: the product shows whether there is a remainder.
                quotient := div(dividend, divisor)
                quotient := or(quotient, gt(dividend, mul(quotient, divisor)))
            }
            return _roundNear(quotient, 4, exponent - (4 << 23), a ^ b);
        }
    }

    /// a * b + c, rounded once
    function fma(uint256 a, uint256 b, uint256 c) internal pure returns (uint256 word) {
        unchecked {
            // The product moves up by 26, c by `shift`, which lies in [-126, 255]; its bit 7 is clear only in [0, 127].
            uint256 exponent = (a & INFINITY) + (b & INFINITY);
            uint256 scaledShift = (c & INFINITY) + (176 << 23) - exponent;
            if (_middle(a) & _middle(b) & _middle(c) & ~scaledShift & MIDDLE == 0) return _fmaAny(a, b, c);
            uint256 shift = scaledShift >> 23;
            uint256 sign = a ^ b;
            uint256 sum = (_normal(a) * _normal(b) << 26) + (_normal(c) * _sign(sign ^ c) << shift);
            uint256 negative = uint256(int256(sum) >> 255);
            sum = (sum ^ negative) - negative;
            sign ^= negative;
            exponent -= 179 << 23;
            // From here on _roundNear, written out: a call would cost 7 % of this function.
            uint256 n = _max(shift, 49);
            uint256 top = sum >> n + 21;
            if (top == 0) {
                n -= 5;
                top = sum >> n + 21;
                if (top == 0) return _round(sign & SIGN, sum, uint256(int256(exponent) >> 23) - 147);
            }
            assembly ("memory-safe") {
                n := add(n, byte(top, LOG2_BELOW_32))
                sum := shl(sub(179, n), sum)
                word := add(shl(23, n), shr(177, add(add(sum, sub(shl(176, 1), 1)), and(shr(177, sum), 1))))
                word := or(add(word, exponent), and(sign, SIGN))
            }
        }
    }

    /// The positive square root
    function sqrt(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (a - IMPLICIT >= INFINITY - IMPLICIT) return _sqrtSpecial(a);
            uint256 odd = a >> 23 & 1;
            uint256 radicand = (a & FRACTION | IMPLICIT) << 30 - odd;
            uint256 root;
            assembly ("memory-safe") {
                // The radicand is in [2^52, 2^54). The chord of its root is at most 6 % off, and three of Newton's steps
                // leave the root or one above it.
                root := div(add(radicand, shl(53, 1)), 0xc000000)
                root := shr(1, add(root, div(radicand, root)))
                root := shr(1, add(root, div(radicand, root)))
                root := shr(1, add(root, div(radicand, root)))
                root := sub(root, gt(mul(root, root), radicand))
                root := or(shl(1, root), lt(mul(root, root), radicand))
            }
            return ((a >> 23) + odd + 124 >> 1 << 23) + (root + 7 + (root >> 4 & 1) >> 4);
        }
    }

    /// The square root of what is not a positive normal number
    function _sqrtSpecial(uint256 a) private pure returns (uint256) {
        unchecked {
            if (a & MAGNITUDE == 0) return a;
            if (a >= INFINITY) return a == INFINITY ? a : NAN;
            // a is the integer a times 2^-149.
            return sqrt(fromUint32(2 * a)) - (75 << 23);
        }
    }

    /// -a
    function neg(uint256 a) internal pure returns (uint256) {
        return isNaN(a) ? NAN : a ^ SIGN;
    }

    /// |a|
    function abs(uint256 a) internal pure returns (uint256) {
        return isNaN(a) ? NAN : a & MAGNITUDE;
    }

    /// a < b; false if either is NaN
    function lt(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _order(a) < _order(b);
    }

    /// a <= b; false if either is NaN
    function le(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _order(a) <= _order(b);
    }

    /// a == b; false if either is NaN
    function eq(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _order(a) == _order(b);
    }

    function isNaN(uint256 a) internal pure returns (bool) {
        return a & MAGNITUDE > INFINITY;
    }

    /// The i32 nearest to `a` towards zero, within its range; 0 for NaN
    function toInt32(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (isNaN(a)) return 0;
            uint256 e = a >> 23 & 0xff;
            if (e > 157) return a & SIGN == 0 ? 0x7fffffff : 0x80000000;
            uint256 magnitude = _normal(a) << 8 >> 158 - e;
            return a & SIGN == 0 ? magnitude : 0 - magnitude & 0xffffffff;
        }
    }

    /// The u32 nearest to `a` towards zero, within its range; 0 for NaN
    function toUint32(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (isNaN(a) || a & SIGN != 0) return 0;
            uint256 e = a >> 23;
            return e > 158 ? 0xffffffff : _normal(a) << 8 >> 158 - e;
        }
    }

    /// The f32 nearest to the i32 `i`
    function fromInt32(uint256 i) internal pure returns (uint256) {
        unchecked {
            return i & SIGN == 0 ? _round(0, i, 0) : _round(SIGN, (1 << 32) - i, 0);
        }
    }

    /// The f32 nearest to the u32 `i`
    function fromUint32(uint256 i) internal pure returns (uint256) {
        return _round(0, i, 0);
    }

    /// a * b + c for any operands
    function _fmaAny(uint256 a, uint256 b, uint256 c) private pure returns (uint256) {
        unchecked {
            uint256 sign = (a ^ b) & SIGN;
            uint256 product;
            uint256 addend;
            uint256 exponent;
            uint256 up;
            bool special;
            assembly ("memory-safe") {
                let ea := and(shr(23, a), 0xff)
                let eb := and(shr(23, b), 0xff)
                let ec := and(shr(23, c), 0xff)
                special := gt(or(or(add(ea, 1), add(eb, 1)), add(ec, 1)), 0xff)
                product := mul(or(and(a, FRACTION), shl(23, gt(ea, 0))), or(and(b, FRACTION), shl(23, gt(eb, 0))))
                addend := or(and(c, FRACTION), shl(23, gt(ec, 0)))
                exponent := sub(add(add(ea, iszero(ea)), add(eb, iszero(eb))), 300)
                up := sub(exponent, sub(add(ec, iszero(ec)), 150))
            }
            if (special) return _fmaSpecial(a, b, c);
            if (product == 0) return addend == 0 ? c & sign : c;
            if ((sign ^ c) & SIGN != 0) addend = 0 - addend;
            if (int256(up) < 0) {
                up = 0 - up;
                exponent += up;
                if (up > FAR) up = FAR;
                product += addend << up;
            } else {
                if (up > FAR) up = FAR;
                product = (product << up) + addend;
            }
            exponent -= up;
            return int256(product) < 0 ? _round(sign ^ SIGN, 0 - product, exponent) : _round(sign, product, exponent);
        }
    }

    /// a * b + c where one of them is infinite or NaN
    function _fmaSpecial(uint256 a, uint256 b, uint256 c) private pure returns (uint256) {
        if (isNaN(a) || isNaN(b) || isNaN(c)) return NAN;
        if (!_special(a) && !_special(b)) return c;
        if (a & MAGNITUDE == 0 || b & MAGNITUDE == 0) return NAN;
        uint256 product = ((a ^ b) & SIGN) | INFINITY;
        return c == product ^ SIGN ? NAN : product;
    }

    /// a / b for any operands
    function _divAny(uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            if (isNaN(a) || isNaN(b)) return NAN;
            uint256 sign = (a ^ b) & SIGN;
            if (_special(a)) return _special(b) ? NAN : sign | INFINITY;
            if (b & MAGNITUDE == 0) return a & MAGNITUDE == 0 ? NAN : sign | INFINITY;
            if (_special(b)) return sign;
            uint256 quotient;
            uint256 e;
            assembly ("memory-safe") {
                let ea := and(shr(23, a), 0xff)
                let eb := and(shr(23, b), 0xff)
                let dividend := shl(64, or(and(a, FRACTION), shl(23, gt(ea, 0))))
                let divisor := or(and(b, FRACTION), shl(23, gt(eb, 0)))
                // slither-disable-next-line divide-before-multiply: the product shows whether there is a remainder.
                quotient := div(dividend, divisor)
                quotient := or(quotient, gt(dividend, mul(quotient, divisor)))
                e := sub(sub(add(ea, iszero(ea)), add(eb, iszero(eb))), 64)
            }
            return sign | _round(sign, quotient, e);
        }
    }

    /// sign | (m * 2^e rounded), for m < 2^126 and a two's complement `e` between -512 and 512; +0 if m is 0.
    function _round(uint256 sign, uint256 m, uint256 e) private pure returns (uint256 word) {
        if (m == 0) return 0;
        assembly ("memory-safe") {
            let n := shl(6, gt(m, 0xffffffffffffffff))
            n := or(n, shl(5, gt(shr(n, m), 0xffffffff)))
            n := or(n, shl(4, gt(shr(n, m), 0xffff)))
            n := or(n, shl(3, gt(shr(n, m), 0xff)))
            n := or(n, shl(2, gt(shr(n, m), 0xf)))
            n := add(n, byte(shr(n, m), LOG2_BELOW_32))
            // The exponent field less one: the implicit bit, where there is one, adds the one.
            let field := add(add(n, e), 126)
            field := mul(field, sgt(field, 0))
            // m moves up by 128 first, so that it always has to move down.
            let shift := sub(sub(field, e), 21)
            m := shl(128, m)
            // slither-disable-next-line incorrect-shift: one half is 1 << (shift - 1).
            let half := shl(sub(shift, 1), 1)
            word := shr(shift, add(m, add(sub(half, 1), and(shr(shift, m), 1))))
            word := add(shl(23, field), word)
            if gt(word, INFINITY) { word := INFINITY }
            word := or(word, sign)
        }
    }

    /// As _round, for m < 2^(base + 26), where the result is known to be normal if m >= 2^(base + 16): it is cheaper there.
    /// `exponent` is the scaled exponent of m's lowest bit plus 147, and of `sign` only the sign bit counts.
    function _roundNear(uint256 m, uint256 base, uint256 exponent, uint256 sign) private pure returns (uint256 word) {
        unchecked {
            uint256 top = m >> base + 21;
            if (top == 0) {
                base -= 5;
                top = m >> base + 21;
                if (top == 0) return _round(sign & SIGN, m, uint256(int256(exponent) >> 23) - 147);
            }
            assembly ("memory-safe") {
                let n := add(base, byte(top, LOG2_BELOW_32))
                m := shl(sub(179, n), m)
                word := add(shl(23, n), shr(177, add(add(m, sub(shl(176, 1), 1)), and(shr(177, m), 1))))
                word := or(add(word, exponent), and(sign, SIGN))
            }
        }
    }

    function _special(uint256 a) private pure returns (bool) {
        return a & INFINITY == INFINITY;
    }

    /// Bit MIDDLE is set if a's exponent field is between 48 and 175; the other bits mean nothing.
    function _middle(uint256 a) private pure returns (uint256) {
        unchecked {
            return a + (80 << 23);
        }
    }

    /// The significand of a normal number
    function _normal(uint256 a) private pure returns (uint256) {
        return a & FRACTION | IMPLICIT;
    }

    /// -1 if a's sign bit is set, 1 if not, in two's complement
    function _sign(uint256 a) private pure returns (uint256) {
        unchecked {
            return 0 - (a >> 31) | 1;
        }
    }

    /// An integer in the order of the number, both zeros being 0
    function _order(uint256 a) private pure returns (int256) {
        unchecked {
            return int256((a & MAGNITUDE) * _sign(a));
        }
    }

    function _max(uint256 a, uint256 b) private pure returns (uint256 larger) {
        assembly ("memory-safe") {
            larger := add(a, mul(sub(b, a), lt(a, b)))
        }
    }
}
