import type { RoomOptions } from '@realtime-service/livekit';
import { beforeEach, expect, test } from 'vitest';
import { createRoomMaker, type MakeRoom } from './make-room.ts';

let nowMs: number;
let asked: { room: string; options: RoomOptions }[];
let makeRoom: MakeRoom;
let failure: Error | undefined;

beforeEach(() => {
  nowMs = 500_000;
  asked = [];
  failure = undefined;
  makeRoom = createRoomMaker({
    createRoom: async (room, options) => {
      asked.push({ room, options });
      if (failure !== undefined) throw failure;
    },
    tokenTtlSeconds: 60,
    now: () => nowMs,
  });
});

test('a room outlives every token that was handed out for it', async () => {
  await makeRoom('room-42', []);
  expect(asked).toEqual([{ room: 'room-42', options: { emptyTimeoutSeconds: 120, departureTimeoutSeconds: 120 } }]);
});

test('is asked for once a second, by however many', async () => {
  await Promise.all(Array.from({ length: 100 }, () => makeRoom('room-42', [])));
  nowMs += 999;
  await makeRoom('room-42', []);
  expect(asked).toHaveLength(1);
  nowMs += 1;
  await makeRoom('room-42', []);
  expect(asked).toHaveLength(2);
});

test('at the door an answer serves for a shorter time: LiveKit may have crashed since', async () => {
  const makeAtDoor = createRoomMaker({
    createRoom: async (room, options) => void asked.push({ room, options }),
    tokenTtlSeconds: 60,
    coalesceMs: 100,
    now: () => nowMs,
  });
  await Promise.all([makeAtDoor('room-42', []), makeAtDoor('room-42', [])]);
  nowMs += 99;
  await makeAtDoor('room-42', []);
  expect(asked).toHaveLength(1);
  nowMs += 1;
  await makeAtDoor('room-42', []);
  expect(asked).toHaveLength(2);
});

test('rooms do not wait for each other', async () => {
  await Promise.all([makeRoom('a', []), makeRoom('b', []), makeRoom('a', [])]);
  expect(asked.map(({ room }) => room)).toEqual(['a', 'b']);
});

test('a refusal counts for the second as well, so that a LiveKit in trouble is not asked by everybody', async () => {
  failure = new Error('LiveKit is away');
  await expect(makeRoom('room-42', [])).rejects.toThrow('LiveKit is away');
  failure = undefined;
  await expect(makeRoom('room-42', [])).rejects.toThrow('LiveKit is away');
  nowMs += 1_000;
  await makeRoom('room-42', []);
  expect(asked).toHaveLength(2);
});

test('agents are asked for with the room', async () => {
  const agents = [{ agent_name: 'scribe', metadata: '{}' }];
  const others = [{ agent_name: 'interpreter', metadata: '{}' }];
  await makeRoom('room-42', []);
  await makeRoom('room-42', agents);
  await makeRoom('room-42', others);
  expect(asked.map(({ options }) => options.agents)).toEqual([undefined, agents, others]);
});
