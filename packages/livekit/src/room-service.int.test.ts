import { type Livekit, startLivekit } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { listening } from '../test/listening.ts';
import { createRoomService, LivekitError, type RoomService } from './index.ts';

const key = { apiKey: 'rooms-key', secret: 'rooms-secret-of-no-value-outside-this-test' };
const options = { emptyTimeoutSeconds: 60, departureTimeoutSeconds: 60 };

describeWith(['livekit'], "LiveKit's RoomService", () => {
  let livekit: Livekit;
  let rooms: RoomService;

  beforeAll(async () => {
    livekit = await startLivekit({ keys: { [key.apiKey]: key.secret } });
    rooms = createRoomService({ apiUrl: livekit.apiUrl, key, timeoutMs: 5_000 });
  });
  afterAll(() => livekit.stop());

  test.each(['plain', 'a/b', '../admin', 'caf\u00e9', 'cafe\u0301', '\u{1F3A5}'.repeat(64)])(
    'room %j is made once, listed byte for byte, and deleted twice',
    async (room) => {
      await rooms.createRoom(room, options);
      await rooms.createRoom(room, options);
      const named = async () => (await rooms.listRooms()).filter(({ name }) => name === room);
      expect(await named()).toHaveLength(1);
      expect((await named())[0]?.creationTimeMs).toBeGreaterThan(1_700_000_000_000);
      expect(await rooms.deleteRoom(room)).toBe(true);
      expect(await rooms.deleteRoom(room)).toBe(false);
      expect(await named()).toEqual([]);
    },
  );

  test('a room that is revived where its node lives stays as it is, and one that is not there is not made', async () => {
    await rooms.createRoom('alive', { ...options, metadata: 'as it was' });
    const before = await rooms.listRooms(['alive']);
    expect(await rooms.reviveRoom('alive')).toBe(true);
    expect(await rooms.listRooms(['alive'])).toEqual(before);
    expect(await rooms.reviveRoom('over')).toBe(false);
    expect(await rooms.listRooms(['over'])).toEqual([]);
  });

  test("another key's room whose name has NUL hides no other", async () => {
    await rooms.createRoom('a\0b', options);
    await rooms.createRoom('beside', options);
    const names = (await rooms.listRooms()).map(({ name }) => name);
    expect(names).toContain('beside');
    expect(names).not.toContain('a\0b');
    await rooms.deleteRoom('a\0b');
  });

  test('who is not there is an answer, in a room that is there or not', async () => {
    await rooms.createRoom('there', options);
    // Without a look at the rooms first, those of 'nowhere' take LiveKit 3 s and are refused as unavailable.
    for (const room of ['there', 'nowhere']) {
      expect(await rooms.listParticipants(room)).toEqual([]);
      expect(await rooms.getParticipant(room, 'ann')).toBeNull();
      expect(await rooms.removeParticipant(room, 'ann')).toBe(false);
      expect(await rooms.setPermission(room, 'ann', listening)).toBe(false);
    }
  });

  test('a message to whoever is not there is taken', async () => {
    await rooms.createRoom('quiet', options);
    await rooms.sendData('quiet', { topic: 'news', text: 'to all' });
    await rooms.sendData('quiet', { topic: 'news', text: 'to ann', to: ['ann'] });
  });

  test('another secret is refused as not ours, and no token is in the error', async () => {
    const stranger = createRoomService({
      apiUrl: livekit.apiUrl,
      key: { ...key, secret: key.secret.toUpperCase() },
      timeoutMs: 5_000,
    });
    const error = await stranger.listRooms().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(LivekitError);
    expect(error).toMatchObject({ kind: 'unauthorised', retryAfterMs: null });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('eyJ');
  });

  test('one that is frozen or gone is unavailable, within the time-out', async () => {
    const quick = createRoomService({ apiUrl: livekit.apiUrl, key, timeoutMs: 300 });
    await livekit.pause();
    // The signal takes a moment to stop all threads.
    await vi.waitFor(() => expect(quick.listRooms()).rejects.toMatchObject({ kind: 'unavailable' }));
    await livekit.resume();
    await livekit.kill();
    await expect(quick.listRooms()).rejects.toMatchObject({ kind: 'unavailable' });
    await livekit.start();
    expect(await quick.listRooms()).toEqual([]);
  });
});
