import { hash, randomUUID } from 'node:crypto';
import { decodeJwt } from 'jose';
import { z } from 'zod';
import type { Person } from './demo-settings.ts';
import type { IssuerClient } from './issuer-client.ts';
import { type JoinProblem, joinRoom } from './join-room.ts';

/**
 * Stands for the service that owns rooms and members: it publishes facts, and calls neither LiveKit nor the api's
 * routes for clients.
 */
export interface DemoDomain {
  readonly roomId: string;
  /** Those who can sign in: ann, bob and cleo are members; dan is none before he is let in. */
  readonly people: readonly Person[];
  /**
   * Publishes the room with its members. Repeats change nothing; so facts that were published since, or dead letters,
   * may keep the host out, and the api's refusal is returned.
   */
  createRoom(): Promise<JoinProblem | undefined>;
  removeMember(person: Person): Promise<void>;
  /** Resolves when the fact is projected, so that the person may join unless the room is closed or in doubt. */
  addMember(person: Person): Promise<void>;
}

const cast = [
  { name: 'ann', displayName: 'Ann', role: 'host' },
  { name: 'bob', displayName: 'Bob', role: 'speaker' },
  { name: 'cleo', displayName: 'Cleo', role: 'listener' },
  { name: 'dan', displayName: 'Dan', role: 'listener' },
] as const;

const Accepted = z.object({ at_least: z.string() });

export async function createDemoDomain(apiUrl: string, issuer: IssuerClient): Promise<DemoDomain> {
  const roomId = 'standup';
  const people = await Promise.all(
    cast.map(async (person) => ({ ...person, userId: decodeJwt(await issuer.signIn(person.name)).sub ?? '' })),
  );

  async function publish(id: string, type: string, data: object): Promise<string> {
    const response = await fetch(`${apiUrl}/api/realtime/events`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await issuer.domainToken()}`,
        'content-type': 'application/cloudevents+json',
      },
      body: JSON.stringify({ specversion: '1.0', id, source: '/demo', type, subject: roomId, data }),
    });
    if (response.status !== 202)
      throw new Error(`the api answered ${type} with ${response.status}: ${await response.text()}`);
    return Accepted.parse(await response.json()).at_least;
  }

  return {
    roomId,
    people,
    createRoom: async () => {
      const members = people
        .filter(({ name }) => name !== 'dan')
        .map(({ userId, role, displayName }) => ({ userId, role, displayName }));
      // The same at every start, so that who was removed since stays removed; another issuer knows other people.
      const id = `standup-${hash('sha256', JSON.stringify(members)).slice(0, 16)}`;
      const atLeast = await publish(id, 'room.created', { name: 'Stand-up', members });
      return projected(atLeast);
    },
    removeMember: async ({ userId }) => {
      await publish(randomUUID(), 'member.removed', { userId });
    },
    addMember: async ({ userId, role, displayName }) => {
      await projected(await publish(randomUUID(), 'member.added', { userId, role, displayName }));
    },
  };

  /** Asks as a client would that has just been told of the room: the api waits for the fact to be projected. */
  async function projected(atLeast: string): Promise<JoinProblem | undefined> {
    const accessToken = await issuer.signIn('ann');
    const outcome = await joinRoom({ apiUrl, roomId, accessToken, body: { at_least: atLeast } });
    if (outcome.kind === 'admitted') return undefined;
    const { problem } = outcome;
    if (problem.status === 401 || (problem.status >= 500 && problem.code !== 'projection_stale')) {
      throw new Error(`the api answered ann, who asked to join ${roomId}, with ${problem.status}: ${problem.code}`);
    }
    return problem;
  }
}
