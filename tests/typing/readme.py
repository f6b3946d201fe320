import asyncio
from engine import Engine, Request

async def main() -> None:
    async with Engine.compose(["policy=interactive"]) as engine:
        request = Request("chat", {"messages": [{"role": "user", "content": "What is the capital of France?"}]})
        result = await engine.submit(request)            # a failed inference is a result, too: result.error
        print(result.text, result.usage, result.engine.attempts)
        async for chunk in engine.stream(request):       # raises the typed error if there is no true end
            if chunk.restarted:                          # a broken stream was rescued with another answer
                print("\n(again:)")
            print(chunk.text, end="")

asyncio.run(main())

with Engine.compose(["model=minilm-l6"]) as engine:      # plain code, from any thread
    embed = engine.endpoint_handler("minilm-l6", "embedding")
    print(len(embed("a sentence").body["data"][0]["embedding"]))
