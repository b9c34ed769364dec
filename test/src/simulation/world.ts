import { decideEntry } from '@realtime-service/api';
import { consumedTopics, type LogPosition, topics } from '@realtime-service/contracts';
import type { ListedParticipant } from '@realtime-service/livekit';
import { attributes, identityOf, isSamePermission, keyOf, toParticipantPermission } from '@realtime-service/room-model';
import { snapshotOf } from '@realtime-service/room-model/snapshot';
import { activeProjection, createFactsReader, type FactsAnswer, type FactsQuery } from '@realtime-service/room-store';
import { type Backup, MemoryDatabase } from '@realtime-service/room-store/memory';
import { Random } from './random.ts';
import { FactSource, loginOf, type RoomFact, roomIds, userIds } from './room-facts.ts';
import { Scheduler, type SimulatedProcess } from './scheduler.ts';
import { SimulatedLivekit, type Token } from './simulated-livekit.ts';
import { partitionCount, SimulatedLog } from './simulated-log.ts';
import { type Lane, SimulatedWorker } from './simulated-worker.ts';
import { findDifference, type Person, Truth } from './truth.ts';

/** A right that changes with time, as far back as a question can ask. */
interface Right {
  isGiven: boolean;
  /** The last moment at which it was given, or was not, before it changed. */
  lastGiven: number;
  lastMissing: number;
}

const people: readonly Person[] = roomIds.flatMap((roomId) =>
  userIds.flatMap((userId) => [0, 1].map((login) => ({ roomId, userId, loginId: loginOf(userId, login) }))),
);
const personOf = (roomId: string, { attributes: signed }: ListedParticipant): Person => ({
  roomId,
  userId: signed?.[attributes.user] ?? '',
  loginId: signed?.[attributes.login] ?? '',
});
const personKey = ({ roomId, userId, loginId }: Person): string => keyOf(roomId, userId, loginId);
const idleTransactionMs = 5_000;
const orderLifeMs = 60_000;
/** Of real time: never met by a run that lasts milliseconds. */
const storeDeadlineMs = 2_500;
const maxQuietRounds = 180;
const sweepEveryRounds = 4;
/** After which a consumer asks again: the database went back, or the log did not tell its bounds. */
const passingErrors = new Set(['ConnectionLostError', 'LogUnavailableError']);

/**
 * A world of two workers, two apis, a database, a log, a LiveKit and people, in which everything happens in an order
 * that a seed decides. Each action is something from outside; between two of them processes take some turns.
 */
export class World {
  readonly story: string[] = [];
  violation: string | null = null;
  actions = 0;
  joins = 0;
  removals = 0;
  mutes = 0;
  readonly scheduler: Scheduler;
  readonly #random: Random;
  readonly #database: MemoryDatabase;
  readonly #log: SimulatedLog;
  readonly #livekit: SimulatedLivekit;
  readonly #facts: FactSource;
  readonly #apis: ((query: FactsQuery) => Promise<FactsAnswer>)[] = [];
  readonly #api: SimulatedProcess = { name: 'api', isDead: false, isPaused: false, skewMs: 0 };
  readonly #workers: SimulatedWorker[] = [];
  readonly #tokens: Token[] = [];
  readonly #published: RoomFact[] = [];
  readonly #late: RoomFact[] = [];
  readonly #letters: { readonly about: string; readonly position: LogPosition }[] = [];
  readonly #backups: Backup[] = [];
  /** What the tables must equal now; after a restore it is older than what was once applied. */
  #believed: Truth;
  readonly #applied: Truth;
  readonly #rights: Readonly<Record<'believed' | 'applied', Map<string, Right>>> = {
    believed: new Map(),
    applied: new Map(),
  };
  /** Whom a worker has seen inside, and when. */
  readonly #seen = new Map<string, { readonly moment: number; readonly person: Person }>();
  /** Sessions that are to be kicked, and until when. */
  readonly #kicks = new Map<string, number>();
  /** Tracks that are to be muted, and until when. */
  readonly #mutes = new Map<string, number>();
  /** How often a worker has seen somebody inside in such a session, less the removals since. */
  readonly #seenToKick = new Map<string, number>();
  #started = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.scheduler = new Scheduler(this.#random);
    this.#log = new SimulatedLog(this.scheduler);
    this.#livekit = new SimulatedLivekit(this.scheduler);
    this.#database = new MemoryDatabase(() => this.scheduler.nowMs);
    this.#facts = new FactSource(this.#random);
    this.#believed = new Truth(this.#log);
    this.#applied = new Truth(this.#log);
    for (const topic of consumedTopics) this.#database.preparePositions(activeProjection, topic, partitionCount);
    this.#database.onCommit = ({ topic, partition, nextOffset }) => {
      if (topic === topics.roomEvents) this.#seeCommit(partition, nextOffset);
    };
    this.#database.onNotify = () => {
      for (const worker of this.#workers) if (this.#random.isLikely(0.8)) worker.wake();
    };
    const toError = () => new Error('the connection was terminated');
    for (let at = 0; at < 2; at += 1) {
      const store = this.#database.connect((point) => this.scheduler.wait(this.#api, point, toError));
      this.#apis.push(createFactsReader(store.readFacts, { deadlineMs: storeDeadlineMs }));
    }
    this.scheduler.errorRate = this.#random.isLikely(0.5) ? 0.02 : 0;
    this.#noteRights();
    for (const roomId of roomIds) this.#publish(this.#facts.created(roomId, this.scheduler.nowMs));
    this.#startWorker();
    this.#startWorker();
    this.#backups.push(this.#database.backup());
  }

  /** Everything that can happen, with its weight. */
  readonly #possible: readonly (readonly [weight: number, act: () => void | Promise<void>])[] = [
    [14, () => this.#publish(this.#facts.next(this.scheduler.nowMs))],
    [3, () => this.#publishAgain()],
    [30, () => this.#fetch()],
    [12, () => this.#join()],
    [14, () => this.#enter()],
    [3, () => this.#leave()],
    [3, () => this.#kick()],
    [2, () => this.#mute()],
    [5, () => this.#settle()],
    [18, () => this.#deliverWebhook()],
    [10, () => this.#passTime()],
    [3, () => this.#sweep()],
    [5, () => this.#kill()],
    [5, () => this.#startWorker()],
    [4, () => this.#pauseOrResume()],
    [3, () => this.#rebalance()],
    [2, () => this.#misplaceReader()],
    [1, () => this.#jumpClock()],
    [1, () => this.#crashLivekit()],
    [1, () => this.#restore()],
  ];

  async step(): Promise<void> {
    this.actions += 1;
    const total = this.#possible.reduce((sum, [weight]) => sum + weight, 0);
    let chance = this.#random.below(total);
    for (const [weight, act] of this.#possible) {
      chance -= weight;
      if (chance >= 0) continue;
      await act();
      break;
    }
    if (this.actions % 40 === 0) this.#backups.push(this.#database.backup());
    const turns = this.#random.below(18);
    for (let turn = 0; turn < turns && this.violation === null; turn += 1) {
      await this.scheduler.turn();
      this.#killAtRareAwait();
    }
  }

  /** Faults end; then, within a bounded time, everything is as the log says, and stays so. */
  async quiesce(): Promise<void> {
    this.#tell('quiet: no more faults');
    this.scheduler.errorRate = 0;
    for (const worker of this.#workers) {
      worker.isPaused = false;
      worker.skewMs = 0;
    }
    this.#startWorker();
    for (const fact of this.#late.splice(0)) this.#publish({ ...fact, canBeLate: false });
    this.#rebalance();
    const quietAtMs = this.scheduler.nowMs;
    let fault: string | null = null;
    for (let round = 0; round < maxQuietRounds && this.violation === null; round += 1) {
      for (const webhook of this.#livekit.webhooks.splice(0)) this.#receive(webhook);
      for (const worker of this.#workers)
        for (const lane of worker.lanes) if (worker.canFetch(lane)) this.#take(worker, lane, 50);
      if (round % sweepEveryRounds === 0) for (const worker of this.#workers) void worker.sweep().catch(() => {});
      for (const worker of this.#workers) void worker.look().catch(() => {});
      while (!this.scheduler.isIdle && this.violation === null) await this.scheduler.turn();
      await this.scheduler.advance(500);
      this.#noteRights();
      if (round < 2 * sweepEveryRounds) continue;
      fault = this.#findFault() ?? this.#findDisobeyed(quietAtMs);
      if (fault === null) return;
    }
    if (fault !== null) this.#violate(`${(maxQuietRounds * 500) / 1000} s after the last fault ${fault}`);
  }

  get #moment(): number {
    return this.actions + this.scheduler.turns;
  }

  #tell(text: string): void {
    this.story.push(`${String(this.actions).padStart(4)}  ${text}`);
  }

  #violate(text: string): void {
    if (this.violation !== null) return;
    this.violation = text;
    this.#tell(`VIOLATION: ${text}`);
  }

  #alive(): SimulatedWorker[] {
    return this.#workers.filter(({ isPaused }) => !isPaused);
  }

  // What happens.

  #publish(fact: RoomFact): void {
    if (fact.canBeLate && this.#random.isLikely(0.2) && this.#late.length < 3 && this.actions > 0) {
      this.#late.push(fact);
      return;
    }
    this.#published.push(fact);
    const { topic, partition, offset } = this.#log.append(fact.record);
    if (fact.isUnreadable)
      this.#letters.push({ about: String(fact.record.key), position: { topic, partition, offset } });
    this.#tell(`published ${partition}/${offset}: ${fact.text}`);
    if (this.#random.isLikely(0.3))
      for (const late of this.#late.splice(0, 1)) this.#publish({ ...late, canBeLate: false });
  }

  #publishAgain(): void {
    const fact = this.#random.pick(this.#published);
    const { partition, offset } = this.#log.append(fact.record);
    this.#tell(`published again ${partition}/${offset}: ${fact.text}`);
  }

  #fetch(): void {
    const ready = this.#alive().flatMap((worker) =>
      worker.lanes.filter((lane) => worker.canFetch(lane)).map((lane) => ({ worker, lane })),
    );
    if (ready.length === 0) return;
    const { worker, lane } = this.#random.pick(ready);
    this.#take(worker, lane, 1 + this.#random.below(5));
  }

  #take(worker: SimulatedWorker, lane: Lane, count: number): void {
    worker.fetch(lane, count).catch((error: unknown) => {
      const isPassing =
        error instanceof Error && (error.message === 'the connection was terminated' || passingErrors.has(error.name));
      if (!isPassing) this.#violate(`the consumer of ${worker.name} ended: ${String(error)}`);
    });
  }

  #join(): void {
    const { roomId, userId, loginId } = this.#random.pick(people);
    const deviceId = this.#random.isLikely(0.2) ? 'phone' : null;
    const asked = this.#moment;
    const store = {
      readFacts: this.#random.pick(this.#apis),
      takeSeat: () => Promise.reject(new Error('no room here counts seats')),
    };
    this.joins += 1;
    const entrant = { roomId, userId, loginId, deviceId, takeOver: false, loginEndsAtMs: null };
    decideEntry(store, entrant).then(
      ({ identity, verdict }) => {
        this.#tell(`${userId} got a token for ${roomId}`);
        if (!this.#had('believed', { roomId, userId, loginId }, asked))
          this.#violate(`${userId} got a token for ${roomId} though no right was there since the question`);
        this.#livekit.make(roomId);
        const permission = toParticipantPermission(verdict.permissions);
        this.#tokens.push({ roomId, identity, userId, loginId, deviceId, permission });
      },
      () => {},
    );
  }

  #enter(): void {
    if (this.#tokens.length === 0) return;
    const token = this.#random.pick(this.#tokens);
    if (this.#livekit.enter(token)) this.#tell(`${token.userId} entered ${token.roomId} as ${token.identity}`);
  }

  #leave(): void {
    const { roomId, userId } = this.#random.pick(people);
    const identity = identityOf({ devicePolicy: { mode: 'multi' } }, userId, null);
    if (this.#livekit.leave(roomId, identity, 'CLIENT_INITIATED')) this.#tell(`${userId} left ${roomId}`);
  }

  #somebodyInside(): { readonly roomId: string; readonly participant: ListedParticipant } | undefined {
    const inside = [...this.#livekit.rooms].flatMap(([roomId, { people: ofRoom }]) =>
      [...ofRoom.values()].map((participant) => ({ roomId, participant })),
    );
    return inside.length === 0 ? undefined : this.#random.pick(inside);
  }

  #kick(): void {
    const inside = this.#somebodyInside();
    if (inside === undefined) return;
    const { nowMs } = this.scheduler;
    this.#kicks.set(inside.participant.sid, nowMs + orderLifeMs);
    this.#publish(this.#facts.kick(inside.roomId, inside.participant, nowMs));
  }

  #mute(): void {
    const inside = this.#somebodyInside();
    const track = inside?.participant.tracks[0];
    if (inside === undefined || track === undefined) return;
    const { nowMs } = this.scheduler;
    this.#mutes.set(track.sid, nowMs + orderLifeMs);
    this.#publish(this.#facts.mute(inside.roomId, { ...inside.participant, trackSid: track.sid }, nowMs));
  }

  /** An operator settles a record that nobody can read: by the time that this is applied, it is a dead letter. */
  #settle(): void {
    if (this.#letters.length === 0) return;
    const { about, position } = this.#random.pick(this.#letters);
    this.#publish(this.#facts.settled(about, position, this.scheduler.nowMs));
  }

  #deliverWebhook(): void {
    const { webhooks } = this.#livekit;
    if (webhooks.length === 0) return;
    const webhook = this.#random.pick(webhooks);
    const chance = this.#random.next();
    if (chance >= 0.1) webhooks.splice(webhooks.indexOf(webhook), 1);
    if (chance >= 0.2) this.#receive(webhook);
    else if (chance >= 0.1) this.#tell(`webhook lost: ${webhook.event} in ${webhook.roomName}`);
  }

  #receive(webhook: Parameters<SimulatedWorker['receive']>[0]): void {
    const alive = this.#alive();
    if (alive.length === 0) return;
    const worker = this.#random.pick(alive);
    // Not acknowledged: LiveKit sends it again.
    worker.receive(webhook).catch(() => this.#livekit.webhooks.push(webhook));
  }

  async #passTime(): Promise<void> {
    await this.scheduler.advance(this.#random.pick([50, 250, 500, 1_000, 3_000, 10_000]));
    for (const worker of this.#alive()) void worker.look().catch(() => {});
    for (const worker of this.#workers)
      if (worker.isPaused && this.scheduler.nowMs - worker.pausedAtMs > idleTransactionMs) worker.loseConnections();
    this.#noteRights();
  }

  #sweep(): void {
    const alive = this.#alive();
    if (alive.length > 0)
      void this.#random
        .pick(alive)
        .sweep()
        .catch(() => {});
  }

  #kill(): void {
    if (this.#workers.length > 0) this.#killOne(this.#random.pick(this.#workers));
  }

  /** Chance alone would hardly ever meet a worker there; and fewer get past a statement than come to it. */
  #killAtRareAwait(): void {
    for (const [point, share] of [
      ['before readDeadLetters', 0.2],
      ['after readDeadLetters', 0.5],
      ['before notifyMarks', 0.02],
    ] as const) {
      const rare = this.#workers.find((worker) => this.scheduler.isWaitingAt(worker, point));
      if (rare !== undefined && this.#random.isLikely(share)) this.#killOne(rare);
    }
  }

  #killOne(worker: SimulatedWorker): void {
    const points = this.scheduler.kill(worker);
    worker.loseConnections();
    this.#workers.splice(this.#workers.indexOf(worker), 1);
    this.#tell(`${worker.name} killed, at ${points.join(', ') || 'rest'}`);
    this.#rebalance();
  }

  #startWorker(): void {
    if (this.#workers.length >= 2) return;
    this.#started += 1;
    const worker: SimulatedWorker = new SimulatedWorker(
      `worker ${this.#started}`,
      {
        scheduler: this.scheduler,
        random: this.#random,
        database: this.#database,
        log: this.#log,
        livekit: this.#livekit,
      },
      {
        onLook: (roomId, participant) => {
          const key = keyOf(worker.name, roomId, participant.identity);
          this.#seen.set(key, { moment: this.#moment, person: personOf(roomId, participant) });
          if (this.#kicks.has(participant.sid)) this.#seenToKick.set(key, (this.#seenToKick.get(key) ?? 0) + 1);
        },
        onRemove: (roomId, participant) => this.#seeRemoval(worker, roomId, participant),
        onDelete: (roomId) => {
          this.#tell(`${worker.name} ended ${roomId}`);
          if (this.#applied.set.rooms.get(roomId)?.state !== 'closed')
            this.#violate(`${roomId} was ended, and is not closed`);
        },
        onMute: (trackSid) => {
          this.mutes += 1;
          this.#tell(`${worker.name} muted ${trackSid}`);
          if (!this.#mutes.has(trackSid)) this.#violate(`${trackSid} was muted, which nobody asked for`);
        },
      },
    );
    this.#workers.push(worker);
    this.#tell(`${worker.name} started`);
    this.#rebalance();
  }

  #pauseOrResume(): void {
    if (this.#workers.length === 0) return;
    const worker = this.#random.pick(this.#workers);
    worker.isPaused = !worker.isPaused;
    worker.pausedAtMs = this.scheduler.nowMs;
    this.#tell(`${worker.name} ${worker.isPaused ? 'stands still' : 'goes on'}`);
    if (worker.isPaused && this.#random.isLikely(0.7)) this.#rebalance();
  }

  #rebalance(): void {
    const alive = this.#alive();
    const owners = new Map<string, SimulatedWorker>();
    if (alive.length > 0)
      for (const topic of consumedTopics)
        for (let partition = 0; partition < partitionCount; partition += 1)
          owners.set(keyOf(topic, String(partition)), this.#random.pick(alive));
    for (const worker of this.#workers)
      worker.assign(({ topic, partition }) => owners.get(keyOf(topic, String(partition))) === worker);
  }

  /** A reader that the log believes elsewhere: behind, or ahead. */
  #misplaceReader(): void {
    const lanes = this.#workers
      .flatMap(({ lanes }) => lanes)
      .filter(({ isBusy, position }) => !isBusy && position !== null);
    if (lanes.length === 0) return;
    const lane = this.#random.pick(lanes);
    const { length } = this.#log.records(lane.topic, lane.partition);
    if (length === 0) return;
    lane.position = BigInt(this.#random.below(length));
    this.#tell(`a reader of ${lane.topic} ${lane.partition} goes on at ${lane.position}`);
  }

  #jumpClock(): void {
    if (this.#workers.length === 0) return;
    const worker = this.#random.pick(this.#workers);
    worker.skewMs = this.#random.pick([-60_000, -2_000, 0, 2_000, 60_000]);
    this.#tell(`the clock of ${worker.name} is wrong by ${worker.skewMs} ms`);
  }

  #crashLivekit(): void {
    this.#livekit.crash();
    this.#tell('LiveKit was killed and is back, empty');
  }

  #restore(): void {
    const backup = this.#random.pick(this.#backups);
    this.#database.restore(backup);
    this.#believed = new Truth(this.#log);
    for (const { topic, partition, nextOffset } of this.#database.tables.positions.values())
      if (topic === topics.roomEvents) this.#believed.foldTo(partition, nextOffset);
    this.#noteRights();
    this.#tell(`the database is restored to an older state (${this.#backups.indexOf(backup)})`);
  }

  // What must hold.

  #seeCommit(partition: number, nextOffset: bigint): void {
    const changes = this.#believed.foldTo(partition, nextOffset);
    this.#applied.foldTo(partition, nextOffset);
    this.#noteRights();
    const difference = findDifference(this.#database, this.#believed, changes);
    if (difference !== null)
      this.#violate(`after ${partition}/${nextOffset} the tables differ from the log: ${difference}`);
  }

  #noteRights(): void {
    const moment = this.#moment;
    for (const kind of ['believed', 'applied'] as const) {
      const truth = kind === 'believed' ? this.#believed : this.#applied;
      for (const person of people) {
        const isGiven = truth.rightsOf(person, this.scheduler.nowMs) !== null;
        const right = this.#rights[kind].get(personKey(person));
        if (right === undefined) {
          this.#rights[kind].set(personKey(person), { isGiven, lastGiven: -1, lastMissing: -1 });
          continue;
        }
        if (right.isGiven === isGiven) continue;
        if (isGiven) right.lastMissing = moment;
        else right.lastGiven = moment;
        right.isGiven = isGiven;
      }
    }
  }

  /** Whether this person had the right at some moment since then. */
  #had(kind: 'believed' | 'applied', person: Person, since: number): boolean {
    const right = this.#rights[kind].get(personKey(person));
    return right !== undefined && (right.isGiven || right.lastGiven >= since);
  }

  /**
   * LiveKit's call names an identity: it can hit a session that has come since the look. What counts is whether whoever
   * was seen had lost the right, or was to be kicked.
   */
  #seeRemoval(worker: SimulatedWorker, roomId: string, { identity }: ListedParticipant): void {
    this.#tell(`${worker.name} removed ${identity} from ${roomId}`);
    this.removals += 1;
    const key = keyOf(worker.name, roomId, identity);
    const seen = this.#seen.get(key);
    const toKick = this.#seenToKick.get(key) ?? 0;
    if (toKick > 0) {
      this.#seenToKick.set(key, toKick - 1);
      return;
    }
    const right = seen && this.#rights.applied.get(personKey(seen.person));
    if (seen === undefined || (right?.isGiven && right.lastMissing < seen.moment))
      this.#violate(`${identity} was removed from ${roomId}, though the right was there since the question`);
  }

  #findFault(): string | null {
    const { tables } = this.#database;
    for (const { topic, partition, nextOffset } of tables.positions.values())
      if (nextOffset !== BigInt(this.#log.records(topic, partition).length))
        return `${topic} ${partition} stands at ${nextOffset}`;
    const [ours, theirs] = [this.#database.projection(), this.#believed.set].map(snapshotOf);
    if (ours?.join('\n') !== theirs?.join('\n')) return 'the tables differ from the log';
    for (const { recordedAtMs, times } of tables.appliedFacts.values())
      if (times > 1) return `a fact of ${recordedAtMs} was applied ${times} times`;
    return this.#findStranger() ?? this.#findAbsent();
  }

  /** People inside who should not be, or with other rights than theirs. */
  #findStranger(): string | null {
    for (const [roomId, live] of this.#livekit.rooms)
      for (const participant of live.people.values()) {
        const { identity, sid, permission } = participant;
        const person = personOf(roomId, participant);
        const rights = this.#believed.rightsOf(person, this.scheduler.nowMs);
        if (rights === null) return `${identity} (${sid}) is inside ${roomId} without a right`;
        if (!isSamePermission(toParticipantPermission(rights), permission))
          return `${identity} in ${roomId} has other rights`;
        const session = [...this.#database.tables.sessions.values()].find(
          ({ participantSid }) => participantSid === sid,
        );
        if (!session?.isLive) return `${identity} (${sid}) is inside ${roomId}, and believed to be away`;
      }
    return null;
  }

  /** Of the orders that had time left when it became quiet. */
  #findDisobeyed(quietAtMs: number): string | null {
    const hasHadTime = (untilMs: number | undefined): boolean => (untilMs ?? 0) - quietAtMs > orderLifeMs / 2;
    for (const [roomId, live] of this.#livekit.rooms)
      for (const { identity, sid, tracks } of live.people.values()) {
        if (hasHadTime(this.#kicks.get(sid))) return `${identity} (${sid}) is inside ${roomId}, and was to be kicked`;
        const loud = tracks.find(
          (track) => hasHadTime(this.#mutes.get(track.sid)) && !this.#livekit.muted.has(track.sid),
        );
        if (loud !== undefined) return `${loud.sid} of ${identity} in ${roomId} was to be muted`;
      }
    return null;
  }

  #findAbsent(): string | null {
    for (const { roomId, participantSid, identity, isLive } of this.#database.tables.sessions.values())
      if (isLive && this.#livekit.rooms.get(roomId)?.people.get(identity)?.sid !== participantSid)
        return `${identity} (${participantSid}) is believed to be inside ${roomId}, and is away`;
    return null;
  }
}
