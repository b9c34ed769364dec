import { createMetrics, type Metrics } from '@realtime-service/telemetry';
import { Counter, Gauge } from 'prom-client';
import type { Freshness } from './freshness.ts';
import type { KeySet } from './key-set.ts';

/** By outcome and reason: logouts that may be the provider's, which tells of each once, and that ended nothing. */
const logoutsThatEndNothing = [
  ['invalid_logout_token', 'algorithm'],
  ['invalid_logout_token', 'audience'],
  ['invalid_logout_token', 'claims'],
  ['invalid_logout_token', 'expired'],
  ['invalid_logout_token', 'header'],
  ['invalid_logout_token', 'invalid'],
  ['invalid_logout_token', 'issuer'],
  ['invalid_logout_token', 'not_yet_valid'],
  ['invalid_logout_token', 'unknown_key'],
  ['rate_limited', 'address'],
  ['store_unavailable', 'key_not_known_yet'],
  ['store_unavailable', 'no_keys'],
] as const;

/** What the api counts. Labels are closed lists: ids of rooms and people are never among them. */
export const createApiMetrics = () => {
  const registry = createMetrics();
  const registers = [registry];
  const metrics = {
    registry,
    /** `outcome` is `allowed`, `accepted` or a problem code; `reason` is what decided. */
    requests: new Counter({
      name: 'realtime_requests',
      help: 'Requests by operation, outcome and what decided it',
      labelNames: ['operation', 'outcome', 'reason'],
      registers,
    }),
    roomsNotMade: new Counter({
      name: 'realtime_rooms_not_made',
      help: 'Rooms that LiveKit could not be asked to make',
      registers,
    }),
    eventsAccepted: new Counter({
      name: 'realtime_events_accepted',
      help: 'Room events appended for producers',
      registers,
    }),
    /** Logouts that could not be appended at first; `outcome` is `kept`, `lost` or `appended`. */
    keptRecords: new Counter({
      name: 'realtime_kept_records',
      help: 'Logouts that could not be appended at once: kept for later, lost, or appended since',
      labelNames: ['outcome'],
      registers,
    }),
    keptRecordsWaiting: new Gauge({
      name: 'realtime_kept_records_waiting',
      help: 'Logouts that are kept and wait for the log, whichever process kept them',
      registers,
    }),
  };
  // A series that begins at 1 has not risen: an alert would miss the first lost logout, or fault of ours.
  for (const outcome of ['kept', 'lost', 'appended']) metrics.keptRecords.inc({ outcome }, 0);
  for (const [outcome, reason] of logoutsThatEndNothing)
    metrics.requests.inc({ operation: 'backchannel_logout', outcome, reason }, 0);
  for (const operation of ['join', 'gate'])
    metrics.requests.inc({ operation, outcome: 'internal', reason: 'internal' }, 0);
  return metrics;
};
export type ApiMetrics = ReturnType<typeof createApiMetrics>;

interface Watched {
  readonly freshness: Pick<Freshness, 'partitions' | 'isLogKnown'>;
  readonly keys: Pick<KeySet, 'ageMs'>;
  readonly consumerGroup: string;
}

/** Gauges of what this process watches: read when they are scraped. */
export const watchState = (registry: Metrics, { freshness, keys, consumerGroup }: Watched): void => {
  const registers = [registry];
  new Gauge({
    name: 'kafka_consumergroup_lag',
    help: 'Records of a partition that the projection has not applied',
    labelNames: ['consumergroup', 'topic', 'partition'],
    registers,
    collect() {
      // While the log's ends are not known the last numbers would say that all is well.
      this.reset();
      if (!freshness.isLogKnown()) return;
      for (const { topic, partition, lag } of freshness.partitions())
        this.set({ consumergroup: consumerGroup, topic, partition: String(partition) }, Number(lag));
    },
  });
  new Gauge({
    name: 'realtime_projection_age_seconds',
    help: 'Time since the oldest unapplied high position of a partition was first seen',
    labelNames: ['topic', 'partition'],
    registers,
    collect() {
      for (const { topic, partition, ageMs } of freshness.partitions())
        this.set({ topic, partition: String(partition) }, ageMs / 1000);
    },
  });
  new Gauge({
    name: 'realtime_log_positions_known',
    help: '1 while the high positions of the log can be read',
    registers,
    collect() {
      this.set(freshness.isLogKnown() ? 1 : 0);
    },
  });
  new Gauge({
    name: 'realtime_identity_keys_age_seconds',
    help: 'Time since the identity provider last gave its keys; NaN when there are none',
    registers,
    collect() {
      const ageMs = keys.ageMs();
      this.set(ageMs === undefined ? Number.NaN : ageMs / 1000);
    },
  });
};
