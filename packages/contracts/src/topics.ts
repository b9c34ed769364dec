/** Topic names. A breaking change of an event is a new topic, so the version is part of the name. */
export const topics = {
  roomEvents: 'realtime.room-events.v1',
  livekitWebhooks: 'realtime.livekit-webhooks.v1',
  presence: 'realtime.presence.v1',
} as const;

export type TopicName = (typeof topics)[keyof typeof topics];

/** What the projection is folded from. Only the first one carries rights. */
export const consumedTopics: readonly TopicName[] = [topics.roomEvents, topics.livekitWebhooks];

/** Where records that can never be applied are published for their producers to see. */
export const deadLetterTopic = (topic: string): string => `${topic}-dlt`;

/** Every topic and its dead letter topic: what a log must have before the services use it. */
export const allTopics: readonly string[] = Object.values(topics).flatMap((topic) => [topic, deadLetterTopic(topic)]);

/** Fixed for a topic's life: growing it lets a removal overtake an older addition. */
export const defaultPartitionCount = 12;
