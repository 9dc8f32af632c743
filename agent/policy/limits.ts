/** Bounds of a policy. Each has a test that hits it. */

/** Bytes of a policy file. */
export const MAX_POLICY_BYTES = 262_144;
/** Nesting of a policy file. */
export const MAX_POLICY_DEPTH = 12;
/** Problems of one file that are told. */
export const MAX_PROBLEMS = 20;
/** Policies of an agent's policy folder that are kept parsed. */
export const MAX_CACHED_POLICIES = 64;
/** Nodes of one evaluation. */
export const MAX_CANDIDATES = 10_000;
/** Reasons in one error message; the others are counted. */
export const MAX_REASONS = 16;
