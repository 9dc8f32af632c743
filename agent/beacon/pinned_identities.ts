import type { Log } from "../../runtime/log.ts";
import type { PinnedPeers } from "./identity_pins.ts";
import { loadPins, savePins } from "./identity_pins_file.ts";
import { PinningVerifier } from "./state_signature.ts";

/** The peers' keys of a running agent: checks what they say against them, and keeps them in the data dir. */
export class PinnedIdentities implements AsyncDisposable {
  readonly verifier: PinningVerifier;
  readonly #dataDir: string;
  readonly #pins: PinnedPeers;
  readonly #log: Log;
  #isUnsaved = false;
  #saving: Promise<void> | undefined;

  private constructor(dataDir: string, own: { pins: PinnedPeers; requireSigned: boolean; log: Log }) {
    this.#dataDir = dataDir;
    this.#pins = own.pins;
    this.#log = own.log;
    this.verifier = new PinningVerifier({
      pins: own.pins,
      requireSigned: own.requireSigned,
      nowMs: Date.now,
      onPinned: () => this.#save(),
    });
  }

  /** With the pins that an earlier agent left. */
  static async open(
    dataDir: string,
    options: { requireSigned: boolean; log: Log },
  ): Promise<PinnedIdentities> {
    return new PinnedIdentities(dataDir, { ...options, pins: await loadPins(dataDir, options) });
  }

  /** Resolves when all is stored. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#saving;
  }

  #save(): void {
    this.#isUnsaved = true;
    this.#saving ??= this.#saveAll();
  }

  async #saveAll(): Promise<void> {
    while (this.#isUnsaved) {
      this.#isUnsaved = false;
      try {
        await savePins(this.#dataDir, this.#pins);
      } catch (error) {
        this.#log.error("cannot store the keys of peers", { error: String(error) });
      }
    }
    this.#saving = undefined;
  }
}
