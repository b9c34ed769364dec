import { noticeTopic } from '@realtime-service/contracts';
import { type Livekit, startLivekit, until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { createRoomService, type RoomService } from '@realtime-service/livekit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Chromium, startChromium } from './browser.ts';
import { connect } from './participant.ts';
import { speakerToken } from './speaker-token.ts';
import { livekitKey } from './system.ts';

describeWith(['livekit', 'chromium'], 'what tells our messages from those of people, in livekit-client', () => {
  let livekit: Livekit;
  let rooms: RoomService;
  let chromium: Chromium;

  beforeAll(async () => {
    livekit = await startLivekit({ keys: { [livekitKey.apiKey]: livekitKey.secret } });
    rooms = createRoomService({ apiUrl: livekit.apiUrl, key: livekitKey, timeoutMs: 2_000 });
    chromium = await startChromium();
  }, 240_000);
  afterAll(async () => {
    await chromium?.stop();
    await livekit?.stop();
  });

  test('the identity of the sender does, also of one who has left at once, whom no participant stands for', async () => {
    await rooms.createRoom('notices', { emptyTimeoutSeconds: 60, departureTimeoutSeconds: 60 });
    const ann = await chromium.connect(livekit.url, await speakerToken('notices', 'ann'));
    const forged = async () => {
      const bob = await connect(livekit.url, await speakerToken('notices', 'bob'));
      await bob.room.localParticipant?.publishData(Buffer.from('forged'), { reliable: true, topic: noticeTopic });
      await bob.leave();
      return (await ann.messages()).find(({ participant }) => participant === null);
    };
    expect(await until('a message comes after its sender is gone', forged, 30_000)).toEqual({
      text: 'forged',
      topic: noticeTopic,
      participant: null,
      identity: 'bob',
    });
    await rooms.sendData('notices', { topic: noticeTopic, text: 'ours' });
    const ours = async () => (await ann.messages()).find(({ text }) => text === 'ours');
    expect(await until('our message has come', ours)).toMatchObject({ participant: null, identity: '' });
  }, 60_000);
});
