import { Re2 } from "../../gossip/regexp/match.ts";
import { MAX_CONSTRAINT_LENGTH, MAX_CONSTRAINTS, MAX_EXPRESSION_LENGTH } from "./limits.ts";
import { TAG } from "./tags.ts";

/** What constraints are asked of. */
export interface ConstraintFacts {
  id: string;
  name: string;
  tags: Readonly<Record<string, string>>;
}

/** A condition on a node, read. */
export interface Constraint {
  /** As it was written. */
  text: string;
  holds(facts: ConstraintFacts): boolean;
}

const SHAPE = /^([A-Za-z0-9][A-Za-z0-9._/-]{0,127})\s*(?:(!=|=~|=)\s*(.*))?$/s;

/**
 * Reads constraints: `key=value`, `key!=value`, `key=~regexp` (RE2's syntax, found anywhere in the value) or `key`, which
 * says that the node has it. Throws `Error` that names the constraint and what is wrong with it.
 */
export function parseConstraints(texts: readonly string[]): Constraint[] {
  if (texts.length > MAX_CONSTRAINTS) {
    throw new Error(
      `Cannot read the constraints: there are ${texts.length}, at most ${MAX_CONSTRAINTS} are taken`,
    );
  }
  return texts.map(parseConstraint);
}

/** The first of them that does not hold, as it was written. */
export function brokenConstraint(
  constraints: readonly Constraint[],
  facts: ConstraintFacts,
): string | undefined {
  return constraints.find((constraint) => !constraint.holds(facts))?.text;
}

function parseConstraint(text: string): Constraint {
  const refuse = (reason: string) => new Error(`Cannot read constraint "${text.slice(0, 128)}": ${reason}`);
  if (text.length > MAX_CONSTRAINT_LENGTH) {
    throw refuse(`it is longer than ${MAX_CONSTRAINT_LENGTH} characters`);
  }
  const match = SHAPE.exec(text.trim());
  if (match === null) throw refuse("write key=value, key!=value, key=~regexp or key");
  const [, key, operator, operand = ""] = match;
  switch (operator) {
    case "=":
      return { text, holds: (facts) => valueOf(key, facts) === operand };
    case "!=":
      return { text, holds: (facts) => valueOf(key, facts) !== operand };
    case "=~": {
      if (operand.length > MAX_EXPRESSION_LENGTH) {
        throw refuse(`the expression is longer than ${MAX_EXPRESSION_LENGTH} characters`);
      }
      const expression = compile(operand, refuse);
      return {
        text,
        holds(facts) {
          const value = valueOf(key, facts);
          return value !== undefined && expression.test(value);
        },
      };
    }
    default:
      return { text, holds: (facts) => valueOf(key, facts) !== undefined };
  }
}

function compile(source: string, refuse: (reason: string) => Error): Re2 {
  try {
    return new Re2(source);
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error));
  }
}

/** A tag's value, or a built-in one. */
function valueOf(key: string, { id, name, tags }: ConstraintFacts): string | undefined {
  switch (key) {
    case "node.id":
      return id;
    case "node.name":
      return name;
    case "node.arch":
      return tags[TAG.arch];
    default:
      return Object.hasOwn(tags, key) ? tags[key] : undefined;
  }
}
