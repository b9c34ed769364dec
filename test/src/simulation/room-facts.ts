import { type CloudEventContext, type LogPosition, toBinaryHeaders, topics } from '@realtime-service/contracts';
import type { NewRecord } from '@realtime-service/event-log';
import type { Random } from './random.ts';

export const roomIds = ['r1', 'r2', 'r3'];
export const userIds = ['ann', 'bob', 'cleo', 'dan'];
export const loginOf = (userId: string, login: number): string => `${userId}-${login}`;

/** A fact that a domain service publishes, and how it reads in a story. */
export interface RoomFact {
  readonly record: NewRecord;
  readonly text: string;
  /** Whether it may overtake facts of its entity, which then carry versions. */
  readonly canBeLate: boolean;
  readonly isUnreadable?: boolean;
}

/** Whom an order is about. */
interface Ordered {
  readonly identity: string;
  readonly sid: string;
}

const roles = ['host', 'speaker', 'speaker', 'listener'] as const;

/** Publishes as a domain service would, with versions per entity or without. */
export class FactSource {
  readonly #random: Random;
  readonly #hasSequences: boolean;
  readonly #sequences = new Map<string, number>();
  #published = 0;

  constructor(random: Random) {
    this.#random = random;
    this.#hasSequences = random.isLikely(0.5);
  }

  next(nowMs: number): RoomFact {
    if (this.#random.isLikely(0.03)) return this.#unreadable(nowMs);
    const [type, subject, entity, data] = this.#pick(nowMs);
    return this.fact(type, subject, entity, data, nowMs);
  }

  created(roomId: string, nowMs: number): RoomFact {
    const members = userIds
      .filter(() => this.#random.isLikely(0.6))
      .map((userId) => ({ userId, role: this.#random.pick(roles) }));
    return this.fact('room.created', roomId, 'room', { members }, nowMs);
  }

  /** An order that concerns one session. */
  kick(roomId: string, { identity, sid }: Ordered, nowMs: number): RoomFact {
    const data = { participantSid: sid, identity, by: this.#random.pick(userIds) };
    return this.fact('participant.kick_requested', roomId, sid, data, nowMs);
  }

  /** An order that concerns one track. */
  mute(roomId: string, { identity, sid, trackSid }: Ordered & { readonly trackSid: string }, nowMs: number): RoomFact {
    const data = { participantSid: sid, identity, trackSid, by: this.#random.pick(userIds) };
    return this.fact('track.mute_requested', roomId, trackSid, data, nowMs);
  }

  /** What an operator does about a record that nobody can read: it is given up, or read again in vain. */
  settled(about: string, { topic, partition, offset }: LogPosition, nowMs: number): RoomFact {
    const type = this.#random.pick(['dead_letter.discarded', 'dead_letter.retried']);
    return this.fact(type, about, 'letter', { topic, partition, offset: String(offset) }, nowMs);
  }

  #pick(nowMs: number): readonly [type: string, subject: string, entity: string, data: object | undefined] {
    const random = this.#random;
    const roomId = random.pick(roomIds);
    const userId = random.pick(userIds);
    const role = random.pick(roles);
    const chance = random.next();
    if (chance < 0.28) return ['member.removed', roomId, userId, { userId }];
    if (chance < 0.56) return ['member.added', roomId, userId, { userId, role }];
    if (chance < 0.62) return ['member.updated', roomId, userId, { userId, role }];
    if (chance < 0.72) {
      const privilege = random.pick(['join', 'publish_audio', 'data'] as const);
      const until = random.isLikely(0.4) ? new Date(nowMs + 1000 * (1 + random.below(40))).toISOString() : undefined;
      return ['member.banned', roomId, `${userId} ${privilege}`, { userId, privilege, until }];
    }
    if (chance < 0.8) {
      const privilege = random.pick(['join', 'publish_audio', 'data'] as const);
      return ['member.unbanned', roomId, `${userId} ${privilege}`, { userId, privilege }];
    }
    if (chance < 0.85) return [random.pick(['user.disabled', 'user.enabled']), userId, 'user', { userId }];
    if (chance < 0.87) return ['login.ended', userId, 'login', { userId, sid: loginOf(userId, random.below(2)) }];
    if (chance < 0.9) return ['room.updated', roomId, 'room', { access: random.pick(['members', 'authenticated']) }];
    if (chance < 0.96) return [random.pick(['room.locked', 'room.unlocked']), roomId, 'room', undefined];
    if (chance < 0.97) return ['room.closed', roomId, 'room', undefined];
    return ['room.created', roomId, 'room', { members: [{ userId, role }] }];
  }

  /** One fact; `entity` is what a version counts. */
  fact(type: string, subject: string, entity: string, data: object | undefined, nowMs: number): RoomFact {
    this.#published += 1;
    const sequence = this.#sequenceOf(`${subject} ${entity}`);
    const context: CloudEventContext = {
      specversion: '1.0',
      id: `fact-${this.#published}`,
      source: '/domain',
      type,
      subject,
      time: new Date(nowMs).toISOString(),
      ...(sequence === undefined ? {} : { sequence }),
    };
    const value = data === undefined ? null : Buffer.from(JSON.stringify(data));
    return {
      record: { topic: topics.roomEvents, key: subject, value, headers: toBinaryHeaders(context) },
      text: `${type} ${subject} ${data === undefined ? '' : JSON.stringify(data)}`,
      canBeLate: sequence !== undefined,
    };
  }

  #sequenceOf(entity: string): string | undefined {
    if (!this.#hasSequences) return undefined;
    const sequence = (this.#sequences.get(entity) ?? 0) + 1;
    this.#sequences.set(entity, sequence);
    return String(sequence);
  }

  /** A removal that nobody can read, of somebody or of nobody knows whom. */
  #unreadable(nowMs: number): RoomFact {
    const roomId = this.#random.pick(roomIds);
    const userId = this.#random.pick(userIds);
    const fact = this.fact('member.removed', roomId, 'unreadable', { userId }, nowMs);
    const value = Buffer.from(this.#random.isLikely(0.5) ? '{"userId":' : JSON.stringify({ userId, reason: 7 }));
    return {
      ...fact,
      record: { ...fact.record, value },
      text: `an unreadable removal in ${roomId}`,
      isUnreadable: true,
    };
  }
}
