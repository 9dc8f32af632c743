import { type Coordinate, decodePingPayload, DIMENSIONS, encodePingPayload } from "../codec/coordinate.ts";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import type { Random } from "../random.ts";

const ERROR_MAX = 1.5;
const CE = 0.25;
const CC = 0.25;
const ADJUSTMENT_WINDOW = 20;
const HEIGHT_MIN = 10e-6;
const LATENCY_SAMPLES = 3;
const GRAVITY_RHO = 150;
const ZERO = 1e-6;
const MAX_RTT_S = 10;

/** What is kept of another node, as one flat list: its place, then the last samples of its round trips. */
const ERROR = DIMENSIONS;
const ADJUSTMENT = DIMENSIONS + 1;
const HEIGHT = DIMENSIONS + 2;
const SAMPLES = DIMENSIONS + 3;

/** A place at the origin, of which nothing is known. */
export function freshCoordinate(): Coordinate {
  return { vec: new Array(DIMENSIONS).fill(0), error: ERROR_MAX, adjustment: 0, height: HEIGHT_MIN };
}

/** Estimated round-trip time between two places, in seconds. */
export function distanceS(a: Coordinate, b: Coordinate): number {
  const raw = rawDistance(a, b);
  const adjusted = raw + a.adjustment + b.adjustment;
  return Math.trunc((adjusted > 0 ? adjusted : raw) * 1e9) / 1e9;
}

/** Vivaldi with Serf's extensions: finds this node's place from measured round trips (section 5.9). */
export class CoordinateClient {
  #own = freshCoordinate();
  #samples: number[] = new Array(ADJUSTMENT_WINDOW).fill(0);
  #sampleIndex = 0;
  readonly #others = new Map<string, number[]>();
  readonly #random: Random;
  readonly #reader = new MsgpackReader();
  #encoded: { of: Coordinate; bytes: Uint8Array } | undefined;

  constructor(random: Random) {
    this.#random = random;
  }

  get own(): Coordinate {
    return this.#own;
  }

  /** The last known place of another node. */
  other(name: string): Coordinate | undefined {
    const place = this.#others.get(name);
    if (place === undefined) return undefined;
    return {
      vec: place.slice(0, DIMENSIONS),
      error: place[ERROR],
      adjustment: place[ADJUSTMENT],
      height: place[HEIGHT],
    };
  }

  /** Estimated round-trip time to another node, in milliseconds; undefined where unknown. */
  rttMs(name: string): number | undefined {
    const other = this.other(name);
    return other && distanceS(this.#own, other) * 1000;
  }

  /** This node's place as the payload of acks; encoded anew only when it has moved. */
  payload(): Uint8Array {
    if (this.#encoded?.of !== this.#own) {
      // Kept for a while: it must not pin the block of memory that it was written into.
      this.#encoded = { of: this.#own, bytes: encodePingPayload(this.#own).slice() };
    }
    return this.#encoded.bytes;
  }

  /** Learns from the payload of an ack. Throws {@linkcode DecodeError}. */
  learn(name: string, rttMs: number, payload: Uint8Array): void {
    this.update(name, decodePingPayload(this.#reader.reset(payload)), rttMs / 1000);
  }

  /** Nodes whose place is known. */
  get size(): number {
    return this.#others.size;
  }

  forget(name: string): void {
    this.#others.delete(name);
  }

  /** Learns from one round trip; false where the other place or the time makes no sense. */
  update(name: string, other: Coordinate, rttS: number): boolean {
    if (!isValid(other) || !(rttS >= 0 && rttS <= MAX_RTT_S)) return false;
    const rtt = this.#filter(this.#keep(name, other), rttS);
    const own: Coordinate = { ...this.#own, vec: [...this.#own.vec] };
    this.#own = own;
    this.#vivaldi(own, other, rtt);
    this.#samples[this.#sampleIndex] = rtt - rawDistance(own, other);
    this.#sampleIndex = (this.#sampleIndex + 1) % ADJUSTMENT_WINDOW;
    own.adjustment = this.#samples.reduce((sum, sample) => sum + sample, 0) / (2 * ADJUSTMENT_WINDOW);
    this.#gravity(own);
    if (!isValid(own)) {
      this.#own = freshCoordinate();
      this.#samples = new Array(ADJUSTMENT_WINDOW).fill(0);
    }
    return true;
  }

  #keep(name: string, { vec, error, adjustment, height }: Coordinate): number[] {
    let place = this.#others.get(name);
    if (place === undefined) {
      place = [...vec, error, adjustment, height, NaN, NaN, NaN];
      this.#others.set(name, place);
      return place;
    }
    for (let i = 0; i < DIMENSIONS; i++) place[i] = vec[i];
    place[ERROR] = error;
    place[ADJUSTMENT] = adjustment;
    place[HEIGHT] = height;
    return place;
  }

  /** Median of the node's last samples, the new one included. */
  #filter(place: number[], rttS: number): number {
    place.copyWithin(SAMPLES + 1, SAMPLES, SAMPLES + LATENCY_SAMPLES - 1);
    place[SAMPLES] = rttS;
    const sorted = place.slice(SAMPLES).filter((sample) => !Number.isNaN(sample)).sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)];
  }

  #vivaldi(own: Coordinate, other: Coordinate, rttS: number): void {
    const rtt = Math.max(rttS, ZERO);
    const distance = distanceS(own, other);
    const wrongness = Math.abs(distance - rtt) / rtt;
    const totalError = Math.max(own.error + other.error, ZERO);
    const weight = own.error / totalError;
    own.error = Math.min(ERROR_MAX, CE * weight * wrongness + own.error * (1 - CE * weight));
    this.#push(own, CC * weight * (rtt - distance), other);
  }

  #gravity(own: Coordinate): void {
    const origin = freshCoordinate();
    const distance = distanceS(origin, own);
    this.#push(own, -((distance / GRAVITY_RHO) ** 2), origin);
  }

  /** Moves `own` away from `other` by `force` seconds (towards it where negative). */
  #push(own: Coordinate, force: number, other: Coordinate): void {
    const { unit, length } = this.#direction(own.vec, other.vec);
    own.vec = own.vec.map((component, i) => component + unit[i] * force);
    if (length > ZERO) {
      own.height = Math.max(HEIGHT_MIN, (own.height + other.height) * force / length + own.height);
    }
  }

  #direction(from: readonly number[], to: readonly number[]): { unit: number[]; length: number } {
    const difference = from.map((component, i) => component - to[i]);
    const length = magnitude(difference);
    if (length > ZERO) return { unit: difference.map((component) => component / length), length };
    const chance = difference.map(() => this.#random.float() - 0.5);
    const chanceLength = magnitude(chance);
    if (chanceLength > ZERO) return { unit: chance.map((component) => component / chanceLength), length: 0 };
    return { unit: difference.map((_, i) => i === 0 ? 1 : 0), length: 0 };
  }
}

function rawDistance(a: Coordinate, b: Coordinate): number {
  return magnitude(a.vec.map((component, i) => component - b.vec[i])) + a.height + b.height;
}

function magnitude(vec: readonly number[]): number {
  let sum = 0;
  for (const component of vec) sum += component * component;
  return Math.sqrt(sum);
}

function isValid(coordinate: Coordinate): boolean {
  const { vec, error, adjustment, height } = coordinate;
  return vec.length === DIMENSIONS && vec.every(Number.isFinite) && Number.isFinite(error) &&
    Number.isFinite(adjustment) && Number.isFinite(height);
}
