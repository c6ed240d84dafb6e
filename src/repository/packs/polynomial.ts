import { randomBytes } from "node:crypto";

/** Polynomials over GF(2): bit i of the number is the coefficient of x^i. */

const DEGREE = 53;

/** A random irreducible polynomial of degree 53, as restic writes it into a repository's config. */
export function randomPolynomial(): bigint {
  for (;;) {
    const random = BigInt(`0x${randomBytes(8).toString("hex")}`) & ((1n << 53n) - 1n);
    const candidate = random | (1n << 53n) | 1n;
    if (isIrreducible(candidate)) return candidate;
  }
}

/**
 * True for an irreducible polynomial of degree 53. As 53 is prime, p is irreducible exactly if p has no root in GF(2)
 * and x^(2^53) = x modulo p: every other factor would have a degree that divides 53.
 */
export function isIrreducible(polynomial: bigint): boolean {
  if (polynomial >> 53n !== 1n) return false;
  if ((polynomial & 1n) === 0n || weight(polynomial) % 2 === 0) return false;
  let power = 2n;
  for (let i = 0; i < DEGREE; i++) power = squareModulo(power, polynomial);
  return power === 2n;
}

/** Tells whether these hex digits of a config are a polynomial that the chunker can use. */
export function isUsable(polynomial: string): boolean {
  return /^[0-9a-f]{1,16}$/.test(polynomial) && isIrreducible(BigInt(`0x${polynomial}`));
}

export function formatPolynomial(polynomial: bigint): string {
  return polynomial.toString(16);
}

function weight(value: bigint): number {
  let count = 0;
  for (const digit of value.toString(2)) if (digit === "1") count++;
  return count;
}

function squareModulo(value: bigint, polynomial: bigint): bigint {
  let square = 0n;
  for (let bit = 0n, rest = value; rest !== 0n; bit += 2n, rest >>= 1n) {
    if ((rest & 1n) === 1n) square |= 1n << bit;
  }
  for (let bit = 104; bit >= DEGREE; bit--) {
    if (((square >> BigInt(bit)) & 1n) === 1n) square ^= polynomial << BigInt(bit - DEGREE);
  }
  return square;
}
