import { type EgressRule, formatPorts, type NetworkRules } from "../../runtime/network/rules.ts";
import { LIMITS } from "./node_rules.ts";
import { layersOf } from "./evaluate.ts";
import type { NodeRules, Policy } from "./policy.ts";
import { selectorText } from "./selector.ts";

/** What a policy asks of a node, one text a rule: `max_latency_ms 80`. */
export function ruleTexts(policy: Policy): string[] {
  return layersOf(policy).flatMap((layer) => {
    const note = layer.mode === "permissive" ? " (noted only)" : "";
    return textsOf(layer.rules).map((text) => text + note);
  });
}

function textsOf(rules: NodeRules): string[] {
  const limits = LIMITS.flatMap(({ rule, limitOf }) => {
    const limit = limitOf(rules);
    return limit === undefined ? [] : [`${rule.slice("rules.".length)} ${limit}`];
  });
  const spread = rules.spread.flatMap(({ tag, maxSkew }) =>
    maxSkew === undefined ? [] : [`spread ${tag} ${maxSkew}`]
  );
  return [
    ...rules.requiredCapabilities.length > 0
      ? [`required_capabilities ${rules.requiredCapabilities.join(", ")}`]
      : [],
    ...limits,
    ...rules.nodes.map((patterns) => `nodes ${patterns.join(", ") || "none"}`),
    ...rules.notNodes.map((pattern) => `not_nodes ${pattern}`),
    ...rules.nodeTags.map(({ tag, values }) => `node_tags ${tag}=${values.join("|")}`),
    ...rules.notNodeTags.map(({ tag, values }) => `not_node_tags ${tag}=${values.join("|")}`),
    ...rules.beside.map((selector) => `beside ${selectorText(selector)}`),
    ...rules.notBeside.map((selector) => `not_beside ${selectorText(selector)}`),
    ...spread,
  ];
}

/** One way out, in words: `tcp 10.0.0.0/8 443, 8000-8100`. */
export function egressText({ cidr, protocol, ports }: EgressRule): string {
  const to = cidr === "0.0.0.0/0" ? "anywhere" : cidr;
  return `${protocol} ${to}${ports === undefined ? "" : ` ${formatPorts(ports)}`}`;
}

/** Network rules in words. */
export function networkTexts(rules: NetworkRules | undefined): {
  limitsEgress: boolean;
  egress: string[];
  limitsIngress: boolean;
  ingressPorts: string[];
} {
  return {
    limitsEgress: rules?.egress !== undefined,
    egress: (rules?.egress ?? []).map(egressText),
    limitsIngress: rules?.ingressPorts !== undefined,
    ingressPorts: (rules?.ingressPorts ?? []).map((range) => formatPorts([range])),
  };
}
