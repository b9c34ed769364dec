import { consumedTopics } from '@realtime-service/contracts';
import { createMetrics } from '@realtime-service/telemetry';
import { Counter, Gauge, Histogram } from 'prom-client';

/** What the worker counts. No label ever names a room or a person. */
export const createWorkerMetrics = () => {
  const registry = createMetrics();
  const registers = [registry];
  const metrics = {
    registry,
    facts: new Counter({
      name: 'realtime_facts',
      help: 'Records of the log, by what became of them',
      labelNames: ['topic', 'outcome'],
      registers,
    }),
    skipped: new Counter({
      name: 'realtime_records_skipped',
      help: 'Records that say nothing here, by reason',
      labelNames: ['topic', 'reason'],
      registers,
    }),
    misplaced: new Counter({
      name: 'realtime_records_misplaced',
      help: 'Records in another partition than murmur2 of their key gives',
      labelNames: ['topic'],
      registers,
    }),
    deadLetters: new Counter({
      name: 'realtime_dead_letters',
      help: 'Records that can never be applied, by reason',
      labelNames: ['topic', 'reason'],
      registers,
    }),
    deadLettersOpen: new Gauge({
      name: 'realtime_dead_letters_open',
      help: 'Dead letters that nobody has settled yet',
      registers,
    }),
    retries: new Counter({
      name: 'realtime_chunk_retries',
      help: 'Chunks that failed for a passing reason',
      labelNames: ['topic'],
      registers,
    }),
    lag: new Gauge({
      name: 'kafka_consumergroup_lag',
      help: 'Records that are not applied yet',
      labelNames: ['consumergroup', 'topic', 'partition'],
      registers,
    }),
    heldBack: new Gauge({
      name: 'realtime_partitions_held_back',
      help: 'Partitions that an open transaction of a producer has kept from being read on for 5 s',
      registers,
    }),
    webhooks: new Counter({
      name: 'realtime_webhooks',
      help: 'Webhooks from LiveKit, by outcome',
      labelNames: ['outcome'],
      registers,
    }),
    answers: new Counter({
      name: 'realtime_marks_answered',
      help: 'Questions about sessions, and orders that concern them, by what was done',
      labelNames: ['action', 'reason'],
      registers,
    }),
    notices: new Counter({
      name: 'realtime_notices',
      help: 'Data messages to people inside, by what they tell and whether LiveKit took them in time',
      labelNames: ['type', 'outcome'],
      registers,
    }),
    enforcementErrors: new Counter({
      name: 'realtime_enforcement_errors',
      help: 'Questions and orders that could not be answered or carried out yet, by what failed: LiveKit (its answer), log or store',
      labelNames: ['kind'],
      registers,
    }),
    removalSeconds: new Histogram({
      name: 'realtime_removal_seconds',
      help: "From the fact's time to LiveKit's confirmation of the removal",
      buckets: [0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 15, 60],
      registers,
    }),
    marksDue: new Gauge({
      name: 'realtime_marks_due',
      help: 'Questions about sessions that wait for an answer',
      registers,
    }),
    markAgeSeconds: new Gauge({
      name: 'realtime_mark_age_seconds',
      help: 'How long the oldest question has waited: since it is due, or since its fact where it was tried in vain',
      registers,
    }),
    /** `outcome` is `completed` or `failed`. */
    sweeps: new Counter({
      name: 'realtime_sweeps',
      help: 'Comparisons of what is believed with what LiveKit lists, by outcome; one worker at a time makes them',
      labelNames: ['outcome'],
      registers,
    }),
    sweepDifferences: new Counter({
      name: 'realtime_sweep_differences',
      help: 'Rooms whose presence differed from LiveKit on two looks',
      registers,
    }),
    sweepAlarms: new Counter({
      name: 'realtime_sweep_alarms',
      help: 'Sweeps that found many differences at once',
      registers,
    }),
    relayed: new Counter({
      name: 'realtime_relayed',
      help: 'Messages published from the database',
      labelNames: ['queue'],
      registers,
    }),
  };
  // A series that begins at 1 has not risen: an alert would miss the first order that expires, unknown room or stranger
  // that is left as it is, failed sweep, or misplaced record.
  for (const reason of ['kick', 'mute']) metrics.answers.inc({ action: 'expired', reason }, 0);
  for (const reason of ['unknown_room', 'not_ours']) metrics.answers.inc({ action: 'observed', reason }, 0);
  for (const outcome of ['completed', 'failed']) metrics.sweeps.inc({ outcome }, 0);
  for (const topic of consumedTopics) metrics.misplaced.inc({ topic }, 0);
  return metrics;
};
export type WorkerMetrics = ReturnType<typeof createWorkerMetrics>;
