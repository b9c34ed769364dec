import { consumedTopics, type LogPartition } from '@realtime-service/contracts';
import type { BatchOutcome, EventLog, LogBatch } from '@realtime-service/event-log';
import type { RoomService } from '@realtime-service/livekit';
import type { MemoryConnection, MemoryDatabase } from '@realtime-service/room-store/memory';
import {
  beforeAnySweep,
  type Clock,
  createLaneGate,
  createProjector,
  createWorkerMetrics,
  noteSeen,
  noticeRestore,
  notingPositions,
  type Positions,
  startEnforcement,
  startPositions,
  sweepOnce,
  toLivekitRecord,
} from '@realtime-service/room-worker';
import { createLogger } from '@realtime-service/telemetry';
import type { Random } from './random.ts';
import type { Scheduler, SimulatedProcess } from './scheduler.ts';
import type { SimulatedLivekit, Webhook, Witness } from './simulated-livekit.ts';
import { partitionCount, type SimulatedLog } from './simulated-log.ts';

export interface Parts {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly database: MemoryDatabase;
  readonly log: SimulatedLog;
  readonly livekit: SimulatedLivekit;
}

/** A partition as a worker reads it. */
export interface Lane {
  readonly topic: string;
  readonly partition: number;
  isAssigned: boolean;
  isBusy: boolean;
  /** Null until it has been asked where to go on. */
  position: bigint | null;
  resumesAtMs: number;
}

const sweepDutySeconds = 30;
const appendTimeoutMs = 2_000;
const metrics = createWorkerMetrics();
const logger = createLogger({ service: 'simulation', level: 'silent' });

/** The room-worker's own code: projector, enforcement, sweep; what `worker.ts` puts together, over simulated parts. */
export class SimulatedWorker implements SimulatedProcess {
  readonly name: string;
  isDead = false;
  isPaused = false;
  skewMs = 0;
  /** When it was held back. */
  pausedAtMs = 0;
  readonly lanes: Lane[];
  readonly #parts: Parts;
  readonly #store: MemoryConnection;
  readonly #log: EventLog;
  readonly #livekit: RoomService;
  readonly #clock: Clock;
  #sweeps = 0;
  #lastSweep = beforeAnySweep;
  readonly #seenByWatch: Positions = new Map();
  readonly #gate: ReturnType<typeof createLaneGate>;
  readonly #project: (batch: LogBatch) => Promise<BatchOutcome>;
  readonly #enforcement: ReturnType<typeof startEnforcement>;

  constructor(name: string, parts: Parts, witness: Witness) {
    const { scheduler, database, log, livekit, random } = parts;
    this.name = name;
    this.#parts = parts;
    this.lanes = consumedTopics.flatMap((topic) =>
      Array.from({ length: partitionCount }, (_, partition) => ({
        topic,
        partition,
        isAssigned: false,
        isBusy: false,
        position: null,
        resumesAtMs: 0,
      })),
    );
    this.#store = database.connect((point) =>
      scheduler.wait(this, point, () => new Error('the connection was terminated')),
    );
    this.#log = log.connect(this);
    this.#livekit = livekit.connect(this, witness);
    this.#clock = {
      now: () => scheduler.nowMs + this.skewMs,
      elapsed: () => scheduler.nowMs,
      delay: (ms, signal) => scheduler.delay(this, ms, signal),
      random: () => random.next(),
    };
    const project = createProjector({
      store: this.#store,
      partitionCount: () => partitionCount,
      metrics,
      logger,
    });
    const seenByGate: Positions = new Map();
    this.#project = notingPositions(project, this.#seenByWatch, seenByGate);
    this.#gate = createLaneGate(this.#store, this.#log, { clock: this.#clock, seen: seenByGate });
    this.#enforcement = startEnforcement({
      store: this.#store,
      livekit: this.#livekit,
      gate: this.#gate,
      unknownRooms: 'observe',
      closingNoticeMs: 60_000,
      clock: this.#clock,
      metrics,
      logger,
    });
  }

  wake(): void {
    if (!this.isDead) this.#enforcement.wake();
  }

  assign(isMine: (lane: Lane) => boolean): void {
    for (const lane of this.lanes) {
      const isAssigned = isMine(lane);
      if (isAssigned && !lane.isAssigned) {
        lane.position = null;
        this.#gate.beginAnew();
      }
      lane.isAssigned = isAssigned;
    }
  }

  canFetch(lane: Lane): boolean {
    const { log, scheduler } = this.#parts;
    if (!lane.isAssigned || lane.isBusy || lane.resumesAtMs > scheduler.nowMs) return false;
    return lane.position === null || lane.position < BigInt(log.records(lane.topic, lane.partition).length);
  }

  /** Takes one batch of a partition, as the log's consumer would. */
  async fetch(lane: Lane, count: number): Promise<void> {
    lane.isBusy = true;
    try {
      lane.position ??= await this.#startOf(lane);
      const { topic, partition, position } = lane;
      const records = this.#parts.log.records(topic, partition).slice(Number(position), Number(position) + count);
      if (records.length === 0) return;
      const outcome = await this.#project({
        topic,
        partition,
        fetchedOffset: position,
        nextOffset: position + BigInt(records.length),
        records,
        heartbeat: async () => lane.isAssigned,
      });
      if (outcome.kind === 'stop') throw outcome.error;
      if (lane.position !== null) lane.position = outcome.nextOffset;
      if (outcome.kind === 'retry') lane.resumesAtMs = this.#parts.scheduler.nowMs + outcome.afterMs;
    } finally {
      lane.isBusy = false;
    }
  }

  async #startOf({ topic, partition }: Lane): Promise<bigint> {
    const positions = await this.#store.readPositions();
    noteSeen(this.#seenByWatch, positions);
    const isOwn = (each: LogPartition): boolean => each.topic === topic && each.partition === partition;
    const [start] = startPositions(positions.filter(isOwn));
    // Nothing of the log is ever dropped.
    return start?.lastRead ?? start?.offset ?? 0n;
  }

  /** What the intake does with a webhook once its signature holds: 200 when it is in the log. */
  async receive({ id, roomName, event, createdAtMs, body }: Webhook): Promise<void> {
    const about = {
      id,
      source: 'livekit',
      type: `livekit.${event}`,
      roomName,
      timeMs: createdAtMs,
      traceparent: undefined,
    } as const;
    await this.#log.append([toLivekitRecord(about, body)], appendTimeoutMs);
  }

  /** What the worker looks at every two seconds. */
  async look(): Promise<void> {
    const reposition = (): void => {
      for (const lane of this.lanes) lane.position = null;
    };
    const looked = { consumer: { reposition }, seen: this.#seenByWatch, logger };
    await noticeRestore(looked, () => this.#store.readPositions());
    await this.#gate.hasReachedKnown([]);
  }

  async sweep(): Promise<void> {
    if (!(await this.#store.holdDuty('sweep', this.name, sweepDutySeconds))) return;
    this.#lastSweep = await sweepOnce({
      store: this.#store,
      log: this.#log,
      livekit: this.#livekit,
      clock: this.#clock,
      metrics,
      logger,
      signal: new AbortController().signal,
      turn: this.#sweeps,
      before: this.#lastSweep,
    });
    this.#sweeps += 1;
  }

  /** What the database does with transactions that stand still for too long. */
  loseConnections(): void {
    this.#store.drop();
  }
}
