import type { BeaconView } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { printable } from "../parse/values.ts";
import { formatTable } from "../table.ts";

const HEADER = [
  "NAME",
  "VERIFIED",
  "LATENCY",
  "JITTER",
  "LOSS",
  "QUEUE",
  "PRICE",
  "REPUTATION",
  "SEEN",
  "OBSERVERS",
  "CAPABILITIES",
];

/** `hypercore beacon`. */
export async function beacon(options: ClientOptions & { json?: true }, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const { beacons, registry, registryReason } = await api.beacons.list({}, { timeoutMs: CALL_TIMEOUT_MS })
    .catch((error) => {
      throw apiError("Cannot list beacons", api, error);
    });
  beacons.sort((a, b) => a.nodeName < b.nodeName ? -1 : 1);
  if (options.json) {
    const shown = {
      registry,
      ...(registryReason !== "" && { registryReason }),
      beacons: beacons.map(viewJson),
    };
    await io.out(`${JSON.stringify(shown, null, 2)}\n`);
    return exitCode.ok;
  }
  await io.out(formatTable(
    HEADER,
    beacons.map((view) => [
      view.isSelf ? `${view.nodeName}*` : view.nodeName,
      view.verified ? "yes" : "no",
      figure(view.latencyMs, " ms", 1),
      figure(view.jitterMs, " ms", 1),
      figure(view.packetLoss, " %", 1),
      String(view.queueDepth),
      String(view.pricePerGb),
      figure(view.reputation, "", 2),
      figure(view.ownScore, ` of ${view.ownWeight.toFixed(0)}`, 2),
      String(view.observers),
      view.capabilities.join(","),
    ]),
  ));
  const reason = registryReason === "" ? "" : `: ${printable(registryReason)}`;
  await io.out(`registry: ${registry}${reason}\n`);
  return exitCode.ok;
}

function viewJson(view: BeaconView) {
  const { $typeName: _type, $unknown: _unknown, nodeName: node, beaconAtMs, ...rest } = view;
  return { node, ...rest, beaconAtMs: Number(beaconAtMs) };
}

function figure(value: number | undefined, unit: string, digits: number): string {
  return value === undefined ? "" : `${value.toFixed(digits)}${unit}`;
}
