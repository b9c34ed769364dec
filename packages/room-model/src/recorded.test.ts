/** What a real LiveKit 1.13.5 told (`npm run record` in test/), told again in every other way. */
import { type LivekitFact, LivekitObserved, readLivekitWebhook } from '@realtime-service/contracts';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import recorded from '../test/recorded-webhooks.json' with { type: 'json' };
import { evolvePresence } from './presence.ts';
import { WorkingSet } from './working-set.ts';

const facts: readonly LivekitFact[] = recorded.webhooks.flatMap((webhook) => {
  const reading = readLivekitWebhook(webhook);
  return reading.kind === 'fact' ? [reading.fact] : [];
});
const startedAtMs = Date.parse('2026-03-01T12:00:00Z');
const listedAtMs = startedAtMs + 60_000;
const lists: readonly LivekitFact[] = recorded.list.map(({ room, participants }) => ({
  type: 'observed',
  observed: LivekitObserved.parse({ roomName: room.name, listedAtMs, room, participants }),
}));

/** Each fact is received a little after the one before it. */
const hear = (told: readonly LivekitFact[], set = new WorkingSet(), firstAtMs = startedAtMs): WorkingSet => {
  for (const [at, fact] of told.entries())
    for (const change of evolvePresence(set, fact, firstAtMs + at)) set.put(change);
  return set;
};
const liveIn = (set: WorkingSet): string[] =>
  recorded.list
    .flatMap(({ room }) => [...set.sessionsOf(room.name)])
    .filter(({ isLive }) => isLive)
    .map(({ roomSid, participantSid, userId, isHidden }) => `${roomSid} ${participantSid} ${userId} ${isHidden}`)
    .sort();

const listed = recorded.list
  .flatMap(({ room, participants }) =>
    participants.map(
      ({ sid, attributes, permission }) => `${room.sid} ${sid} ${attributes['rt.user']} ${permission.hidden}`,
    ),
  )
  .sort();
const shuffled = (told: readonly LivekitFact[]) => fc.shuffledSubarray([...told], { minLength: told.length });

test('in its order: who is live is whom it listed, hidden ones told apart', () => {
  expect(liveIn(hear(facts))).toEqual(listed);
  expect(listed.filter((each) => each.endsWith('true'))).toHaveLength(1);
});

test('in any order and twice: the same', () => {
  fc.assert(
    fc.property(
      fc.subarray([...facts]).chain((again) => shuffled([...facts, ...again])),
      (told) => {
        expect(liveIn(hear(told))).toEqual(listed);
      },
    ),
    { numRuns: 2_000 },
  );
});

test('in any order, twice and with losses: the same after the next list', () => {
  fc.assert(
    fc.property(
      fc.subarray([...facts, ...facts]).chain((some) => shuffled(some)),
      (told) => {
        expect(liveIn(hear(lists, hear(told), listedAtMs))).toEqual(listed);
      },
    ),
    { numRuns: 2_000 },
  );
});
