/** Where a core takes chance from. */
export interface Random {
  /** A number of 0 (inclusive) to 1 (exclusive). */
  float(): number;
  /** An integer of 0 (inclusive) to `bound` (exclusive). */
  int(bound: number): number;
  /** `length` bytes no one can foresee (nonces). */
  bytes(length: number): Uint8Array;
}

/** A seeded generator (xoshiro128**): the same seed gives the same run. Not for secrets. */
export function seededRandom(seed: number): Random {
  let mix = seed >>> 0;
  const next = () => {
    // splitmix32 spreads the seed over the state.
    mix = (mix + 0x9e3779b9) | 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  return xoshiro([next(), next(), next(), next()]);
}

/** Chance for production: a fast generator seeded by the system, and the system's own bytes. */
export function systemRandom(): Random {
  const seed = crypto.getRandomValues(new Uint32Array(4));
  return {
    ...xoshiro([seed[0], seed[1], seed[2], seed[3] | 1]),
    bytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
  };
}

function xoshiro(state: [number, number, number, number]): Random {
  let [a, b, c, d] = state;
  const uint32 = () => {
    const scaled = Math.imul(b, 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  return {
    float: () => uint32() / 0x1_0000_0000,
    int: (bound) => Math.floor((uint32() / 0x1_0000_0000) * bound),
    bytes: (length) => {
      const out = new Uint8Array(length);
      for (let i = 0; i < length; i++) out[i] = uint32() >>> 24;
      return out;
    },
  };
}
