"""Word lists of the English grammar."""

from __future__ import annotations


def words(text: str, separator: str = " ") -> list[str]:
    """The parts of a list written over several lines."""
    return [part.strip() for part in text.replace("\n", separator).split(separator) if part.strip()]


NAMES = words(
    """Aaron Abigail Adam Adrian Aisha Alan Albert Alex Alexander Alexandra Alice Alison Amanda
    Amber Amelia Amy Andrea Andrew Angela Anita Anna Anne Anthony Antonio Arthur Ashley Audrey
    Austin Barbara Beatrice Ben Benjamin Bernard Beth Betty Bill Bob Brandon Brenda Brian Bruce
    Caleb Cameron Carl Carla Carlos Carmen Carol Caroline Catherine Cecilia Charles Charlie
    Charlotte Chloe Chris Christian Christina Christine Christopher Claire Clara Colin Connor
    Craig Cynthia Daisy Daniel Danielle Darren David Dawn Dean Deborah Denise Dennis Diana Diego
    Donald Donna Dorothy Douglas Duncan Dylan Edith Edward Edwin Eileen Elaine Eleanor Elena Eli
    Elijah Elizabeth Ella Ellen Emily Emma Eric Ethan Eva Evan Evelyn Fatima Felix Fiona
    Florence Frances Francis Frank Fred Gabriel Gary Gavin Geoffrey George Gerald Gina Gloria
    Gordon Grace Graham Grant Greg Hannah Harold Harriet Harry Hassan Heather Hector Heidi Helen
    Henry Holly Howard Hugo Ian Irene Iris Isaac Isabel Ivan Jack Jacob Jade James Jamie Jane
    Janet Jason Jasmine Jean Jeff Jennifer Jenny Jeremy Jerry Jessica Jill Jim Joan Joanna Joe
    John Jonathan Jordan Jose Joseph Joshua Joy Joyce Juan Judith Julia Julian Julie June Justin
    Karen Karl Kate Katherine Kathy Katie Keith Kelly Ken Kenneth Kevin Kim Kyle Lara Larry
    Laura Lauren Lawrence Leah Lee Leo Leon Leonard Leslie Lewis Liam Lily Linda Lisa Liz Logan
    Louis Louise Lucas Lucy Luis Luke Lydia Madison Marco Marcus Margaret Maria Marie Marilyn
    Mark Martha Martin Mary Mason Matthew Maureen Max Maya Megan Melanie Melissa Michael
    Michelle Miguel Mike Miles Molly Monica Morgan Nancy Naomi Natalie Nathan Neil Nicholas
    Nicole Nina Noah Nora Norman Oliver Olivia Oscar Owen Pamela Patricia Patrick Paul Paula
    Pedro Penny Peter Phil Philip Phoebe Priya Rachel Ralph Ravi Ray Raymond Rebecca Richard
    Rita Robert Robin Roger Ronald Rosa Rose Ross Roy Russell Ruth Ryan Sally Sam Samantha
    Samuel Sandra Sara Sarah Scott Sean Sergio Shannon Sharon Shirley Simon Sofia Sonia Sophie
    Stanley Stella Stephen Steve Stuart Susan Suzanne Sylvia Tara Ted Teresa Terry Theo Thomas
    Tim Tina Toby Tom Tony Tracy Trevor Tyler Valerie Vanessa Vera Veronica Victor Victoria
    Vincent Violet Virginia Walter Wanda Warren Wayne Wendy William Yasmin Yvonne Zachary Zoe"""
)
SURNAMES = words(
    """Adams Allen Anderson Baker Bell Bennett Brooks Brown Butler Campbell Carter Clark Collins
    Cook Cooper Davies Davis Edwards Evans Fisher Foster Garcia Gibson Gonzalez Gray Green
    Griffin Hall Hamilton Harris Hayes Henderson Hill Howard Hughes Hunt Jackson Jenkins Johnson
    Jones Kelly King Lewis Lopez Marshall Martin Martinez Mason Miller Mitchell Moore Morgan
    Morris Murphy Murray Nelson Parker Patel Patterson Perry Phillips Powell Price Reed Reynolds
    Richardson Roberts Robinson Rogers Ross Russell Sanders Scott Shaw Simpson Smith Stevens
    Stewart Sullivan Taylor Thomas Thompson Turner Walker Ward Watson Webb West White Williams
    Wilson Wood Wright Young"""
)
CITIES = words(
    """Aberdeen,Adelaide,Amsterdam,Athens,Atlanta,Auckland,Austin,Baltimore,Bangkok,Barcelona
    Beijing,Belfast,Berlin,Birmingham,Boston,Brisbane,Bristol,Brussels,Budapest,Buenos Aires
    Cairo,Calgary,Cambridge,Cape Town,Cardiff,Chicago,Cleveland,Cologne,Copenhagen,Dallas,Delhi
    Denver,Detroit,Dubai,Dublin,Edinburgh,Florence,Frankfurt,Geneva,Glasgow,Hamburg,Helsinki
    Hong Kong,Houston,Istanbul,Jakarta,Jerusalem,Johannesburg,Kansas City,Kiev,Lagos,Las Vegas
    Leeds,Lima,Lisbon,Liverpool,London,Los Angeles,Lyon,Madrid,Manchester,Manila,Marseille
    Melbourne,Memphis,Mexico City,Miami,Milan,Montreal,Moscow,Mumbai,Munich,Nairobi,Naples
    Nashville,New Orleans,New York,Newcastle,Nottingham,Orlando,Oslo,Ottawa,Oxford,Paris,Perth
    Philadelphia,Phoenix,Pittsburgh,Portland,Prague,Quebec,Richmond,Rio de Janeiro,Rome
    Rotterdam,Sacramento,Salt Lake City,San Antonio,San Diego,San Francisco,Santiago,Seattle
    Seoul,Sheffield,Singapore,Southampton,Stockholm,Sydney,Tampa,Tel Aviv,Tokyo,Toronto,Turin
    Vancouver,Venice,Vienna,Warsaw,Washington,Wellington,York,Zurich""",
    ",",
)
COUNTRIES = words(
    """Argentina,Australia,Austria,Belgium,Brazil,Canada,Chile,China,Cuba,Denmark,Egypt,England
    Finland,France,Germany,Greece,Hungary,Iceland,India,Ireland,Israel,Italy,Japan,Kenya,Mexico
    Morocco,Norway,Peru,Poland,Portugal,Russia,Scotland,South Africa,Spain,Sweden,Switzerland
    Thailand,Turkey,Wales,the Netherlands,the Czech Republic,the United States,New Zealand""",
    ",",
)
STREETS = words("Main,Church,High,Park,Station,Mill,Bridge,Oak,Victoria,Queen,River,Hill,Lake", ",")
ROOMS = words(
    """kitchen,bedroom,bathroom,office,garage,living room,hall,basement,attic,garden,dining room
    nursery,guest room,study,laundry room,porch""",
    ",",
)
DEVICES = words(
    """light,lamp,fan,heater,television,radio,lights,heating,air conditioning,speaker,dishwasher
    oven,washing machine,vacuum cleaner,alarm,camera,sprinkler,computer,printer,kettle""",
    ",",
)
COLOURS = words("red green blue white yellow orange purple pink grey brown black")
MUSIC = words(
    """jazz,rock,pop,classical music,piano music,some music,the news,a song,country music,a podcast
    my favourite playlist,something relaxing,the latest album,the blues,folk music,an audiobook
    the radio,some opera,dance music,that song again""",
    ",",
)
ITEMS = words(
    """milk,bread,eggs,coffee,tea,apples,water,rice,cheese,butter,sugar,bananas,oranges,potatoes
    onions,garlic,tomatoes,carrots,chicken,beef,fish,pasta,flour,salt,pepper,olive oil,honey
    yoghurt,cereal,chocolate,biscuits,lemons,lettuce,mushrooms,spinach,soap,shampoo,toothpaste
    batteries,paper towels,dog food,wine,beer,orange juice,strawberries,peas,beans,ham,salmon
    nuts""",
    ",",
)
OBJECTS = words(
    """book,bag,phone,car,bicycle,coat,umbrella,ticket,passport,letter,key,map,camera,guitar,chair
    table,box,jacket,watch,wallet,hat,sweater,newspaper,picture,laptop,suitcase,parcel,cake
    sandwich,dress,shirt,knife,ladder,hammer,blanket,pillow,mirror,bottle,notebook,pencil""",
    ",",
)
ADJECTIVES = words(
    """old new big small good bad beautiful expensive cheap heavy light strange wonderful boring
    funny important difficult easy dangerous comfortable broken dirty clean warm cold quiet
    noisy famous bright dark empty full perfect terrible useful huge tiny short long interesting"""
)
JOBS = words(
    """doctor,teacher,lawyer,nurse,engineer,farmer,artist,pilot,driver,baker,writer,student,manager
    waiter,police officer,scientist,dentist,musician,carpenter,journalist,plumber,chef,actor
    soldier,librarian,gardener,mechanic,electrician""",
    ",",
)
RELATIVES = words(
    """mother,father,brother,sister,uncle,aunt,cousin,grandmother,grandfather,son,daughter,wife
    husband,friend,neighbour,boss,colleague,teacher,roommate,nephew,niece""",
    ",",
)
PLACES = words(
    """park,station,airport,library,office,school,hospital,museum,beach,restaurant,supermarket
    hotel,theatre,cinema,bank,post office,church,market,gym,stadium,university,bakery,pharmacy
    zoo,harbour,bus stop,town hall,bookshop,coffee shop,swimming pool,castle,factory,farm,forest
    lake,mountains""",
    ",",
)
ACTIONS = words(
    """go for a walk,play tennis,read a book,watch a film,cook dinner,clean the house,buy a new car
    learn to swim,visit my parents,write a letter,paint the fence,wash the dishes
    take a photograph,call a taxi,feed the cat,walk the dog,fix the roof,plant some trees
    have a cup of tea,go shopping,listen to the radio,ride a bicycle,bake a cake
    pack the suitcase,pay the bill,send an email,play the piano,study for the exam
    go to bed early,take the bus,catch the early train,make breakfast,talk to the doctor
    find a better job,save some money,finish the report,open the window,move house,take a break
    get some sleep,do the laundry,cut the grass,answer the phone,change the subject""",
    ",",
)
FEELINGS = words(
    """happy,sad,tired,hungry,thirsty,angry,excited,bored,nervous,surprised,worried,proud,lonely
    sick,afraid,confused,sorry,ready,busy,late,lost,grateful,jealous,embarrassed,in a hurry
    on holiday""",
    ",",
)
OPINIONS = words(
    """I think,I don't think,I believe,I hope,I'm sure,I'm not sure,I guess,I suppose,I'm afraid
    Everybody says,She told me,He told me,They say,I heard,I know,We thought,It seems,Maybe
    Of course,Perhaps,Luckily,Unfortunately,To be honest""",
    ",",
)
SMALL_TALK = words(
    """How are you?|I'm fine, thank you.|What's your name?|Nice to meet you.|Where are you from?
    See you tomorrow.|Have a nice day.|Good luck!|Congratulations!|Happy birthday!
    I beg your pardon?|Could you repeat that, please?|I don't understand.|What do you mean?
    That's a good idea.|You're right.|I have no idea.|It doesn't matter.|Don't worry about it.
    Take your time.|Make yourself at home.|What a pity!|That's all right.
    I'm looking forward to it.|It's raining again.|Let's go!|Wait a minute.|Hurry up!
    Be careful!|Help yourself.|You're welcome.|Excuse me.|Never mind.|I agree with you.
    I changed my mind.|It's up to you.|What happened?|Who is it?|Come in, please.
    Sit down, please.|I'll be right back.|Just a moment, please.|How much does it cost?
    Can I help you?|Where is the nearest bank?|I'd like a cup of coffee, please.
    The bill, please.|What time does it open?|Is this seat taken?|I'm just looking, thank you.
    Could you speak more slowly?|What's going on?|That sounds great.|I can't hear you.
    Can you hear me now?|Please leave a message.|I'll call you back later.|Sorry, wrong number.
    Long time no see.|What's the matter?|Leave me alone.|Shut the door.|Keep the change.
    I'm not hungry.|It's getting late.|Sleep well.|Sweet dreams.""",
    "|",
)
PARTS = words(
    """in the morning,in the afternoon,in the evening,at night,tonight,tomorrow,today
    tomorrow morning,this evening,next week,next month,this weekend,the day after tomorrow
    after lunch,before dinner,at noon,at midnight,as soon as possible""",
    ",",
)
PAST = words(
    """yesterday,last night,last week,last year,this morning,two days ago,a long time ago
    last summer,last Monday,the other day,a few minutes ago,on Sunday,in the spring
    during the war,at Christmas""",
    ",",
)
