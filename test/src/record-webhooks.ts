// Records what a real LiveKit tells of two rooms, and whom it lists in the end: the fixture of room-model's tests.
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { signalIn, startLivekit, until } from '@realtime-service/dev-stack';
import { createRoomService } from '@realtime-service/livekit';
import { AccessToken } from 'livekit-server-sdk';
import { connect, type Participant } from './participant.ts';

const file = fileURLToPath(import.meta.resolve('../../packages/room-model/test/recorded-webhooks.json'));
const key = { apiKey: 'recorded', secret: 'recorded-secret-of-no-value-outside-this' };
const room = 'recorded';
const otherRoom = 'recorded-too';

const webhooks: { readonly event: string }[] = [];
const sink = createServer(async (request, response) => {
  webhooks.push(JSON.parse(Buffer.concat(await request.toArray()).toString()));
  response.end();
});
sink.listen(0, '127.0.0.1');
await once(sink, 'listening');
const livekit = await startLivekit({
  keys: { [key.apiKey]: key.secret },
  webhookUrl: `http://127.0.0.1:${(sink.address() as AddressInfo).port}/`,
});
const service = createRoomService({ apiUrl: livekit.apiUrl, key, timeoutMs: 5_000 });

const tokenFor = (name: string, identity: string, more: object = {}): Promise<string> => {
  const token = new AccessToken(key.apiKey, key.secret, {
    identity,
    ttl: 600,
    attributes: { 'rt.user': identity.split('.')[0] ?? identity, 'rt.device': identity },
  });
  token.addGrant({ roomJoin: true, room: name, canPublish: true, canSubscribe: true, ...more });
  return token.toJwt();
};
const inside: Participant[] = [];
const enter = async (name: string, identity: string, more?: object): Promise<Participant> => {
  const client = await connect(livekit.url, await tokenFor(name, identity, more));
  inside.push(client);
  return client;
};
const heard = (event: string, times: number) =>
  until(`${times} × ${event}`, () => webhooks.filter((each) => each.event === event).length >= times, 90_000);
const create = (name: string) => service.createRoom(name, { emptyTimeoutSeconds: 300, departureTimeoutSeconds: 300 });

await create(room);
await create(otherRoom);
const ann = await enter(room, 'ann.phone');
await enter(room, 'ann.laptop');
const bob = await enter(room, 'bob');
await enter(room, 'cleo');
await enter(otherRoom, 'bob');
await enter(otherRoom, 'watcher', { hidden: true });
await heard('participant_joined', 6);
await ann.publishVideo();
await heard('track_published', 1);
// The same identity again, somebody who leaves, somebody who is removed.
await enter(room, 'cleo');
await bob.leave();
await service.removeParticipant(room, 'ann.laptop');
await heard('participant_left', 3);
// Somebody who only signals is given up after a minute.
await signalIn(livekit.url, await tokenFor(room, 'eve'));
await heard('participant_connection_aborted', 1);
// The same room, another life.
await service.deleteRoom(room);
await heard('room_finished', 1);
await create(room);
await enter(room, 'ann.phone');
const dan = await enter(room, 'dan');
await enter(room, 'bob');
await heard('participant_joined', 10);
await dan.leave();
await heard('participant_left', 6);

const list = await Promise.all(
  (await service.listRooms()).map(async (each) => ({
    room: each,
    participants: await service.listParticipants(each.name),
  })),
);
await writeFile(file, `${JSON.stringify({ webhooks, list }, null, 1)}\n`);
process.stdout.write(`${webhooks.length} webhooks, ${list.length} rooms\n`);
for (const client of inside) await client.leave();
await livekit.stop();
sink.closeAllConnections();
sink.close();
process.exit(0);
