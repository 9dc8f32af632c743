import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";

/** One step of a sequence that is undone in reverse when a later one fails. */
export interface Step {
  name: string;
  run(signal: AbortSignal): Promise<void>;
  /** Puts back what {@linkcode run} did, whole or half. Idempotent; runs to its end whatever the caller's signal says. */
  undo?(): Promise<void>;
}

/** Sees each step before it is run; a throw fails the step. For tests, and to tell users how it goes. */
export type StepObserver = (step: string) => void | Promise<void>;

/** What {@linkcode runSteps} is given besides the steps. */
export interface StepOptions {
  signal: AbortSignal;
  log: Log;
  onStep?: StepObserver;
  /** Told of each step that can't be undone, and why. */
  onLeft?: (error: unknown) => void;
}

/**
 * Runs the steps in order. A failure, the signal's too, undoes in reverse all that were begun and is thrown. The step
 * that failed is undone as well, as nobody knows how far it got, unless it failed since its thing `already-exists`:
 * then the thing is another's. What can't be undone is logged and left to garbage collection.
 */
export async function runSteps(steps: readonly Step[], options: StepOptions): Promise<void> {
  const begun: Step[] = [];
  try {
    for (const step of steps) {
      options.signal.throwIfAborted();
      begun.push(step);
      await options.onStep?.(step.name);
      await step.run(options.signal);
    }
  } catch (error) {
    if (error instanceof RuntimeError && error.code === "already-exists") begun.pop();
    await undo(begun, options);
    throw error;
  }
}

async function undo(begun: Step[], { log, onLeft }: StepOptions): Promise<void> {
  for (const step of begun.reverse()) {
    try {
      await step.undo?.();
    } catch (error) {
      log.error("cannot undo a step; garbage collection will", { step: step.name, error: String(error) });
      onLeft?.(error);
    }
  }
}
